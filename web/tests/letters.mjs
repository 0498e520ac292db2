// What goes by mail: registering with a token and an address, the letters to who is away, and a forgotten password.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { Person, Server, check, password, sleep } from "./harness.mjs";

/** A mail server that keeps what it is given. */
async function mailServer() {
    const letters = [];
    const server = createServer((socket) => {
        let data;
        let rest = "";
        socket.write("220 here\r\n");
        socket.on("error", () => {});
        socket.on("data", (chunk) => {
            const lines = (rest + chunk).split("\r\n");
            rest = lines.pop();
            for (const line of lines) {
                if (data !== undefined) {
                    if (line === ".") {
                        // Quoted-printable, as links are written in it.
                        letters.push(data.replace(/=\r\n/g, "").replace(/=([0-9A-F]{2})/g, (_, code) => String.fromCharCode(parseInt(code, 16))));
                        data = undefined;
                        socket.write("250 kept\r\n");
                    } else data += `${line}\r\n`;
                } else if (/^DATA/i.test(line)) {
                    data = "";
                    socket.write("354 go on\r\n");
                } else if (/^QUIT/i.test(line)) socket.end("221 bye\r\n");
                else socket.write("250 good\r\n");
            }
        });
    });
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    return { letters, port: server.address().port, close: () => server.close() };
}

export async function byMail(vatra) {
    const mail = await mailServer();
    const smtp = `[smtp]\nhost = "127.0.0.1"\nport = ${mail.port}\ntls = "none"\nfrom = "vatra <vatra@localhost>"\n`;
    const server = new Server(vatra, { client: 'base_url = "http://localhost:PORT"', more: `[registration]\ntoken = "open sesame"\nrequire_email = true\n${smtp}` });
    await server.start();
    const ana = new Person(server, "ana");
    const address = "ana@example.org";

    /** Follows the newest letter's link and presses the button on its page, as a person would. */
    async function follow(count) {
        const until = Date.now() + 60_000;
        while (mail.letters.length < count) {
            assert.ok(Date.now() < until, "no letter came");
            await sleep(50);
        }
        const link = /http:\/\/localhost:\d+\/\S*token=[^\s"<&]+[^\s"<]*/.exec(mail.letters.at(-1))?.[0].replaceAll("&amp;", "&");
        assert.ok(link, mail.letters.at(-1));
        const page = await ana.context.newPage();
        await page.goto(link);
        await page.getByRole("button").click();
        await page.waitForLoadState();
        await page.close();
    }

    try {
        await check("registering asks for a token and an address, each in its turn", async () => {
            await ana.open();
            await ana.go("#/register");
            await ana.label("User name").fill("Ana");
            await ana.label("Password").fill(password("ana"));
            const next = (name) => ana.button(name, { exact: true }).click();
            await next("Make an account");
            const token = async () => {
                await ana.label("Token").fill("guess");
                await next("Make an account");
                await ana.text("The server does not take this.").waitFor();
                await ana.label("Token").fill("open sesame");
                await next("Make an account");
            };
            const letter = async () => {
                await ana.label("E-mail address").fill(address);
                await next("Send the letter");
                await ana.text(/A letter is on its way/).waitFor();
                await next("I have followed the link");
                await ana.text("The link in the letter has not been followed yet.").waitFor();
                await follow(1);
                await next("I have followed the link");
            };
            // The order is the server's.
            const first = await Promise.race([ana.label("Token").waitFor().then(() => "token"), ana.label("E-mail address").waitFor().then(() => "letter")]);
            for (const step of first === "token" ? [token, letter] : [letter, token]) await step();
            await ana.inside();
        });

        await check("when letters come is chosen in the settings, and the server knows", async () => {
            await ana.go("#/settings/notices");
            await ana.label("Letters").selectOption("Once an hour");
            await ana.text("Saved").first().waitFor();
            await ana.label("Quiet hours").check();
            await ana.label("From").fill("21:30");
            await ana.label("Until").fill("06:15");
            await ana.page.keyboard.press("Tab");
            const { accessToken } = await ana.page.evaluate(() => JSON.parse(localStorage.getItem("vatra.session")));
            const pushers = async () => (await server.api("GET", "/pushers", undefined, accessToken)).pushers;
            let data;
            for (let i = 0; i < 100 && data?.["org.vatra.quiet_hours"]?.to !== "06:15"; i++) {
                await sleep(50);
                data = (await pushers())[0]?.data;
            }
            assert.equal(data["org.vatra.mode"], "hourly");
            assert.equal(data["org.vatra.quiet_hours"].from, "21:30");
            await ana.page.reload();
            await ana.inside();
            await ana.label("From").waitFor();
            assert.equal(await ana.label("From").inputValue(), "21:30");
            await ana.label("Letters").selectOption("Never");
            await ana.label("From").waitFor({ state: "detached" });
            for (let i = 0; i < 100 && (await pushers()).length > 0; i++) await sleep(50);
            assert.deepEqual(await pushers(), []);
        });

        await check("a forgotten password is set anew by letter", async () => {
            await ana.go("#/settings/profile");
            await ana.button("Sign out").click();
            await ana.page.getByRole("dialog").getByRole("button", { name: "Sign out" }).click();
            await ana.label("User name or e-mail address").waitFor();
            await ana.link("Forgot your password?").click();
            await ana.label("E-mail address").fill(address);
            await ana.button("Send the letter").click();
            await ana.label("New password").fill("another password");
            await follow(2);
            await ana.button("Set the new password").click();
            await ana.text("The new password is set.").waitFor();
            await ana.link("Sign in", { exact: true }).click();
            await ana.label("User name or e-mail address").fill(address);
            await ana.label("Password").fill(password("ana"));
            await ana.button("Sign in", { exact: true }).click();
            await ana.page.getByRole("alert").waitFor();
            await ana.label("Password").fill("another password");
            await ana.button("Sign in", { exact: true }).click();
            await ana.inside();
        });
        await check("nothing went wrong in the page meanwhile", () => ana.close());
    } finally {
        await server.stop();
        server.remove();
        mail.close();
    }
}
