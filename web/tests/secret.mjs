// What nobody else may read: an encrypted conversation, emoji, the recovery key, and a third browser that reads it all again.
import assert from "node:assert/strict";
import { Person, check, picture, password, sleep } from "./harness.mjs";

export async function secret(server, ana, bogdan) {
    const said = ["the green lantern hangs at the mill", "I bring the old map", "dawn, not earlier"];
    let key;

    await check("a direct message is encrypted from the first word, and both read it", async () => {
        await ana.link("Direct message").click();
        await ana.label("With whom?").fill("bogdan");
        await ana.button("Write to them: @bogdan:localhost").click();
        await ana.page.getByRole("textbox", { name: "Write an encrypted message" }).waitFor();
        await bogdan.page.getByRole("navigation", { name: "Rooms" }).getByRole("link", { name: /Invitation from/ }).click();
        await bogdan.button("Accept").click();
        await bogdan.composer().waitFor();
        // Whoever speaks first waits for the other's keys to be known.
        await ana.messages().getByText(/came in/).last().waitFor();
        await ana.say(said[0]);
        await bogdan.hears(said[0]);
        await bogdan.say(said[1]);
        await ana.hears(said[1]);
    });

    await check("a picture in it arrives, and no server could show it", async () => {
        const buffer = await picture(1400, 1000, "the map");
        await ana.page.locator('form input[type="file"]').setInputFiles({ name: "map.png", mimeType: "image/png", buffer });
        await ana.button("Send", { exact: true }).click();
        const shown = bogdan.button("Picture map.png");
        await shown.locator("img").waitFor();
        await shown.click();
        const whole = bogdan.page.getByRole("dialog").locator("img");
        await whole.waitFor();
        assert.equal(await whole.evaluate(async (image) => (await image.decode(), image.naturalWidth)), 1400);
        await bogdan.page.keyboard.press("Escape");
        const uploads = [...ana.sent].filter((request) => request.includes("/upload"));
        assert.ok(!uploads.some((request) => request.slice(-buffer.length).includes("\x89PNG") && request.includes(buffer.subarray(200, 260).toString("latin1"))));
    });

    await check("they compare emoji, and each knows the other", async () => {
        await ana.link("People", { exact: true }).click();
        await ana.button(/^Bogdan the Cook|^bogdan/).click();
        await ana.button("Verify", { exact: true }).click();
        await bogdan.page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
        const emoji = async (person) => {
            await person.button("They are the same").waitFor();
            return await person.page.getByRole("dialog").locator("ol").innerText();
        };
        const [one, other] = await Promise.all([emoji(ana), emoji(bogdan)]);
        assert.equal(one, other);
        await ana.button("They are the same").click();
        await bogdan.button("They are the same").click();
        for (const person of [ana, bogdan]) {
            await person.page.getByRole("dialog").getByText(/is verified/).waitFor();
            await person.button("Good").click();
        }
        await ana.button(/^Bogdan the Cook|^bogdan/).click();
        await ana.page.getByRole("dialog").getByText("Verified", { exact: true }).waitFor();
        await ana.page.keyboard.press("Escape");
    });

    await check("a recovery key is made and shown once", async () => {
        await ana.link(/make a recovery key/).click();
        await ana.button("Make a recovery key").click();
        const shown = ana.page.locator("output");
        await shown.waitFor({ timeout: 90_000 });
        key = (await shown.innerText()).trim();
        assert.match(key, /^(\w{4} ){11}\w{4}$/);
        await ana.button("I have kept it").click();
        await ana.text("Your messages are safe").waitFor();
        await ana.page.reload();
        await ana.inside();
        await ana.text("Your messages are safe").waitFor();
        assert.equal(await ana.page.locator("output").count(), 0);
        await ana.enter(/Bogdan/);
        await ana.say(said[2]);
        await bogdan.hears(said[2]);
        // The keys go to the backup by and by.
        await sleep(3000);
    });

    const third = new Person(server, ana.name);
    await check("a third browser signs in, and reads the history by the recovery key", async () => {
        // High enough to show all of it: of what is not in view there are no rows.
        await third.open({ viewport: { width: 1180, height: 1600 } });
        await third.signIn();
        await third.enter(/Bogdan/);
        await third.messages().getByText("This message cannot be decrypted here").first().waitFor();
        await third.link(/Verify this device/).click();
        await third.label("Recovery key").fill("EsTx not a key");
        await third.button("Use the recovery key").click();
        await third.text("This is not the recovery key of your account.").waitFor();
        await third.label("Recovery key").fill(key);
        await third.button("Use the recovery key").click();
        await third.text("Your messages are safe").waitFor({ timeout: 90_000 });
        await third.enter(/Bogdan/);
        for (const text of said) await third.hears(text);
        await third.button("Picture map.png").locator("img").waitFor();
    });

    await check("it is one of the devices, verified, and is signed out from the first", async () => {
        await ana.go("#/settings/devices");
        const devices = ana.page.getByRole("region", { name: "Devices" }).getByRole("listitem");
        await ana.text("This device").waitFor();
        const other = devices.filter({ hasNotText: "This device" });
        await other.getByText("Verified", { exact: true }).waitFor();
        await other.getByRole("button", { name: /^Sign out/ }).click();
        await ana.page.getByRole("dialog").getByRole("button", { name: "Sign out" }).click();
        await ana.page.getByRole("dialog").getByLabel("Password").fill("wrong");
        await ana.page.getByRole("dialog").getByRole("button", { name: "Confirm" }).click();
        await ana.text("That was not the password. Try again.").waitFor();
        await ana.page.getByRole("dialog").getByLabel("Password").fill(password(ana.name));
        await ana.page.getByRole("dialog").getByRole("button", { name: "Confirm" }).click();
        await other.waitFor({ state: "detached" });
        await third.button("Sign in", { exact: true }).waitFor({ timeout: 90_000 });
    });

    const fourth = new Person(server, ana.name);
    await check("another new browser is verified by emoji with the first, and reads the history", async () => {
        await fourth.open({ viewport: { width: 1180, height: 1600 } });
        await fourth.signIn();
        await fourth.link(/Verify this device/).click();
        await fourth.button("Verify with another device").click();
        await ana.page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
        for (const person of [ana, fourth]) await person.button("They are the same").waitFor();
        const [one, other] = await Promise.all([ana, fourth].map((person) => person.page.getByRole("dialog").locator("ol").innerText()));
        assert.equal(one, other);
        for (const person of [ana, fourth]) await person.button("They are the same").click();
        for (const person of [ana, fourth]) await person.button("Good").click();
        await fourth.text("Your messages are safe").waitFor();
        await fourth.enter(/Bogdan/);
        for (const text of said) await fourth.hears(text);
    });

    await check("no plaintext and no recovery key is in any request of any of them", async () => {
        for (const person of [ana, bogdan, third, fourth]) {
            assert.ok(person.sent.length > 50);
            for (const request of person.sent) {
                for (const text of [...said, key, key.replaceAll(" ", ""), "map.png"]) {
                    assert.ok(!request.includes(text) && !request.includes(encodeURIComponent(text)), `${text} in ${request.slice(0, 200)}`);
                }
            }
        }
    });
    await third.close();
    await fourth.close();
}
