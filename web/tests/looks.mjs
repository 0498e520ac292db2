// The main views in light, dark and on a phone: axe finds no serious fault, nothing is wider than the screen, and pictures for docs/web/ where
// VATRA_WEB_LOOKS names a folder.
import assert from "node:assert/strict";
import { AxeBuilder } from "@axe-core/playwright";
import { Person, check, picture, sleep } from "./harness.mjs";

/** A room as one would like to find it. */
async function stage(server) {
    const [ioana, mihai, elena] = await Promise.all(["ioana", "mihai", "elena"].map((name) => server.guest(name)));
    const names = new Map([[ioana, "Ioana Marin"], [mihai, "Mihai"], [elena, "Elena Popescu"]]);
    for (const [person, displayname] of names) {
        await person.api("PUT", `/profile/${encodeURIComponent(person.id)}/displayname`, { displayname });
    }
    const upload = async (buffer) => {
        const answer = await fetch(`http://127.0.0.1:${server.port}/_matrix/media/v3/upload`, { method: "POST", headers: { authorization: `Bearer ${ioana.token}`, "content-type": "image/png" }, body: buffer });
        return (await answer.json()).content_uri;
    };
    const open = { preset: "public_chat", visibility: "public" };
    const { room_id: room } = await ioana.api("POST", "/createRoom", { ...open, name: "Mountain hike", topic: "Saturday, if it does not rain. Meet at the station at seven.", room_alias_name: "hike" });
    for (const [name, topic] of [["Neighbours", "Bins, keys and lost cats"], ["Book club", "This month: The Forest of the Hanged"], ["Sourdough", "Flour, water, patience"]]) {
        await mihai.api("POST", "/createRoom", { ...open, name, topic });
    }
    for (const person of [mihai, elena]) await person.api("POST", `/join/${encodeURIComponent(room)}`, {});
    const said = async (person, content) => (await person.send(room, { msgtype: "m.text", ...content })).event_id;
    await said(ioana, { body: "Good morning! Who comes along on Saturday?" });
    const yes = await said(mihai, { body: "I do, and I bring the stove" });
    await said(elena, { body: "Count me in", "m.relates_to": { "m.in_reply_to": { event_id: yes } } });
    for (const person of [ioana, elena]) {
        await person.api("PUT", `/rooms/${encodeURIComponent(room)}/send/m.reaction/${person.id}`, { "m.relates_to": { rel_type: "m.annotation", event_id: yes, key: "🔥" } });
    }
    const url = await upload(await picture(1200, 760));
    await said(elena, { msgtype: "m.image", body: "ridge.png", filename: "ridge.png", url, info: { mimetype: "image/png", w: 1200, h: 760 } });
    await said(elena, { body: "The ridge last week", format: "org.matrix.custom.html", formatted_body: "The ridge <strong>last week</strong>" });
    await said(ioana, {
        body: "To bring:\n- water\n- a warm coat\n- bread",
        format: "org.matrix.custom.html",
        formatted_body: "<p>To bring:</p><ul><li>water</li><li>a warm coat</li><li>bread, see <a href=\"https://example.org/bread\">the recipe</a></li></ul>",
    });
    return { room, ioana };
}

const SIZES = {
    light: { colorScheme: "light", viewport: { width: 1280, height: 800 } },
    dark: { colorScheme: "dark", viewport: { width: 1280, height: 800 } },
    phone: { colorScheme: "light", viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true },
};

export async function looks(server) {
    const { room, ioana } = await stage(server);
    const wide = { width: 3840, height: 2160 };

    for (const [kind, options] of Object.entries(SIZES)) {
        const ana = new Person(server, `dana-${kind}`);
        const folder = process.env.VATRA_WEB_LOOKS;
        const show = async (name) => {
            await sleep(400);
            const { violations } = await new AxeBuilder({ page: ana.page }).analyze();
            const serious = violations.filter((fault) => ["serious", "critical"].includes(fault.impact));
            assert.deepEqual(serious.map((fault) => `${fault.id}: ${fault.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`), [], name);
            assert.ok(await ana.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is wider than the screen`);
            if (folder) await ana.page.screenshot({ path: `${folder}/${name}-${kind}.png` });
        };
        await check(`${kind}: six main views have no serious fault of accessibility`, async () => {
            await ana.open(options);
            await ana.button("Join Mountain hike").waitFor();
            await show("welcome");
            await ana.button("Join Mountain hike").click();
            await ana.label("User name").fill(ana.name);
            await ana.label("Password").fill("dana has a password");
            await ana.button("Make an account").click();
            await ana.composer().waitFor();
            await ana.hears("To bring:");
            await ioana.send(room, { msgtype: "m.text", body: `Welcome, ${kind}!` });
            await ana.hears(`Welcome, ${kind}!`);
            await ana.messages().locator("img").first().waitFor();
            await show("room");
            await ana.go(`#/room/${encodeURIComponent(room)}/info`);
            await ana.button(/Ioana Marin/).waitFor();
            await show("people");
            await ana.go("#/settings/security");
            await ana.button("Make a recovery key").waitFor();
            await show("settings");
            await ana.go("#/search");
            await ana.page.getByPlaceholder("Words to look for").fill("stove");
            await ana.button("Search", { exact: true }).click();
            await ana.text("1 message found").waitFor();
            await show("search");
            await ana.go(kind === "phone" ? "#/" : "#/explore");
            await ana.link(/Mountain hike/).waitFor();
            await show("rooms");
        });
        await check(`${kind}: nothing is cut off at 320 pixels and at 4K`, async () => {
            for (const viewport of [{ width: 320, height: 560 }, wide]) {
                await ana.page.setViewportSize(viewport);
                for (const hash of [`#/room/${encodeURIComponent(room)}`, "#/settings/devices", "#/settings/notices", "#/settings/looks", "#/settings/profile", "#/new", "#/talk", "#/"]) {
                    await ana.go(hash);
                    await sleep(150);
                    const cut = await ana.page.evaluate(() => [...document.querySelectorAll("button, input, a, h1, h2, select")].filter((node) => node.offsetParent && !node.closest(".hidden") && !node.matches(".hidden, .skip") && node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML.slice(0, 120)));
                    assert.deepEqual(cut, [], `${hash} at ${viewport.width}`);
                }
            }
        });
        await ana.close();
    }

    await check("with the keyboard alone: into a room, write, react, and out again", async () => {
        const ana = await new Person(server, "keys").open();
        await ana.register();
        const press = (key) => ana.page.keyboard.press(key);
        const focused = () => ana.page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent ?? "");
        const reach = async (pattern) => {
            for (let i = 0; i < 60; i++) {
                if (pattern.test(await focused())) return;
                await press("Tab");
            }
            throw new Error(`not reached: ${pattern}`);
        };
        await reach(/Join Mountain hike/);
        await press("Enter");
        await ana.composer().waitFor();
        await reach(/^Write a message/);
        await ana.page.keyboard.type("typed blind");
        await press("Enter");
        await ana.hears("typed blind");
        const more = ana.message("typed blind").getByRole("button", { name: "What to do with the message" });
        await more.focus();
        await press("Enter");
        for (let i = 0; i < 6 && !/^React$/.test(await focused()); i++) await press("Shift+Tab");
        await press("Enter");
        assert.equal(await focused(), "React with 👍");
        await press("Enter");
        await ana.button("👍 by keys").waitFor();
        await ana.close();
    });
}
