// What strangers send to do harm: each kind stays harmless.
import assert from "node:assert/strict";
import { check } from "./harness.mjs";

export async function hostile(server, ana) {
    const mallory = await server.guest("mallory");
    const { room_id: room } = await mallory.api("POST", "/createRoom", { preset: "public_chat", name: "Market" });
    const html = (formatted_body, body = "see") => mallory.send(room, { msgtype: "m.text", format: "org.matrix.custom.html", body, formatted_body });

    await check("until here the policy had nothing to refuse", () => assert.deepEqual(ana.faults, []));

    await check("scripts, styles, forms, frames and pictures in HTML are taken out; what is good is kept", async () => {
        await ana.page.evaluate(() => (window.harmed = false));
        const harm = "window.harmed=true;parent.harmed=true";
        const evil = [
            `<b>kept</b><script>${harm}</script>`,
            `<img src=x onerror="${harm}">`,
            `<svg onload="${harm}"><a xlink:href="javascript:${harm}">x</a></svg>`,
            `<a href="javascript:${harm}" onclick="${harm}">press me</a>`,
            `<a href="data:text/html,<script>${harm}</script>">data</a>`,
            `<iframe srcdoc="<script>${harm}</script>"></iframe><object data="javascript:${harm}"></object>`,
            `<style>body{display:none}</style><div style="position:fixed;inset:0;z-index:99">over</div>`,
            `<form action="https://evil.example"><input name=q><button>send</button></form>`,
            `<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=${harm}&gt;">`,
            `<details open ontoggle="${harm}"><summary>s</summary></details>`,
            `<span id="main" class="shell offline" name="homeserver">cl</span>`,
            `<a href="https://good.example/" target="_self">good</a>`,
        ];
        for (const body of evil) await html(body);
        await html("last of the evil");
        await ana.go(`#/room/${encodeURIComponent(room)}`);
        await ana.button("Join", { exact: true }).click();
        await ana.hears("last of the evil");
        const log = ana.messages();
        await log.locator("b", { hasText: "kept" }).waitFor();
        for (const tag of ["script", "iframe", "object", "embed", "style", "form", "input", ".words img", ".words svg", "math", ".words [style]", ".words [id]", ".words .shell"]) {
            assert.equal(await log.locator(tag).count(), 0, tag);
        }
        for (const link of await log.locator(".words a").all()) {
            const href = await link.getAttribute("href");
            assert.ok(href === null || /^https:\/\/good\.example\//.test(href), href);
            if (href) assert.equal(await link.getAttribute("target"), "_blank");
        }
        const attributes = await log.locator(".words *").evaluateAll((all) => all.flatMap((one) => one.getAttributeNames()).filter((name) => name.startsWith("on")));
        assert.deepEqual(attributes, []);
        await log.getByText("press me").click();
        await log.getByText("data", { exact: true }).click();
        assert.equal(await ana.page.evaluate(() => window.harmed), false);
        assert.ok(!ana.sent.some((request) => request.includes("evil.example")));
    });

    await check("display names cannot turn the text around, hide, or fill the page", async () => {
        for (const [name, shown] of [["\u202eyrollam\u202c\u200b\u2066", "yrollam"], [`z${"\u0334".repeat(200)}algo`, null], ["x".repeat(250), null], ["<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"], ["\u200b\u2060", "@mallory:localhost"]]) {
            await mallory.api("PUT", `/profile/${encodeURIComponent(mallory.id)}/displayname`, { displayname: name });
            await mallory.send(room, { msgtype: "m.text", body: `I am ${[...name].length}` });
            await ana.hears(`I am ${[...name].length}`);
            const author = ana.messages().locator(".who").last();
            const text = await author.innerText();
            assert.ok(!/[\u200b\u202a-\u202e\u2060-\u2069]/.test(text), JSON.stringify(text));
            // Two who could be confused have their addresses beside their names.
            if (shown) assert.ok(text === shown || text === `${shown} (${mallory.id})`, text);
            const box = await author.boundingBox();
            const view = await ana.messages().boundingBox();
            assert.ok(box.x + box.width <= view.x + view.width && box.height < 60, JSON.stringify(box));
        }
    });

    await check("what writes from right to left stays within its own message", async () => {
        await mallory.send(room, { msgtype: "m.text", body: "pay \u202e000,1 to me" });
        await mallory.send(room, { msgtype: "m.text", body: "plain and after it" });
        await ana.hears("plain and after it");
        const isolated = await ana.messages().locator(".words").last().evaluate((node) => [getComputedStyle(node).unicodeBidi, getComputedStyle(node).direction]);
        assert.deepEqual(isolated, ["isolate", "ltr"]);
    });

    await check("file names cannot lie about what they are, nor files about their type", async () => {
        const upload = await fetch(`http://127.0.0.1:${server.port}/_matrix/media/v3/upload`, {
            method: "POST",
            headers: { authorization: `Bearer ${mallory.token}`, "content-type": "text/html" },
            body: "<script>parent.harmed=true</script>",
        });
        const { content_uri: url } = await upload.json();
        await mallory.send(room, { msgtype: "m.file", body: "bill\u202efdp.exe", filename: "../../bill\u202efdp.exe", url, info: { mimetype: "text/html", size: -5 } });
        await ana.message("bill").last().waitFor();
        const [download] = await Promise.all([ana.page.waitForEvent("download"), ana.button(/^Save .*bill/).click()]);
        assert.equal(download.suggestedFilename(), "_.._billfdp.exe".replace(/^_\.\._/, "_.._"));
        await mallory.send(room, { msgtype: "m.image", body: "p.svg", url, info: { mimetype: "image/svg+xml", w: 1e9, h: -3 } });
        const shown = ana.button("Picture p.svg");
        await shown.getByText("It could not be loaded.").waitFor();
        const box = await shown.boundingBox();
        assert.ok(box.width < 400 && box.height < 400, JSON.stringify(box));
        assert.equal(await ana.page.evaluate(() => window.harmed), false);
    });

    await check("huge messages are folded, and the page stays quick", async () => {
        await mallory.send(room, { msgtype: "m.text", body: "tall\n".repeat(9000) });
        await mallory.send(room, { msgtype: "m.text", body: "w".repeat(50_000) });
        await html("<div>".repeat(3000) + "deep" + "</div>".repeat(3000), "deep down");
        await html("<b>a</b>".repeat(3500), "many tags");
        await mallory.send(room, { msgtype: "m.text", body: { not: "text" }, format: 7, formatted_body: ["<b>"] });
        await mallory.send(room, { msgtype: "m.image", body: null, url: 12, file: "no", info: "none" });
        await mallory.send(room, { msgtype: "m.text", body: "after the flood" });
        const begin = Date.now();
        await ana.hears("after the flood");
        assert.ok(Date.now() - begin < 5000);
        const heights = await ana.page.getByRole("article").evaluateAll((all) => all.map((one) => one.getBoundingClientRect().height));
        assert.ok(Math.max(...heights) < 700, `${heights}`);
        const wide = await ana.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert.ok(!wide);
        await ana.say("still here");
        await ana.hears("still here");
    });

    await check("rooms with evil names, topics, pictures and state are shown as text", async () => {
        const evil = await mallory.api("POST", "/createRoom", {
            preset: "public_chat",
            visibility: "public",
            name: "<script>harmed=true</script>\u202e",
            topic: "<img src=x onerror=harmed=true>".repeat(20),
            initial_state: [
                { type: "m.room.avatar", content: { url: "javascript:harmed=true" } },
                { type: "m.room.pinned_events", content: { pinned: 5 } },
            ],
        });
        await mallory.api("PUT", `/rooms/${encodeURIComponent(evil.room_id)}/state/m.room.topic`, { topic: { no: "text" } });
        await ana.go("#/explore");
        await ana.button(/^Join <script>/).click();
        await ana.composer().waitFor();
        await ana.link("People", { exact: true }).click();
        await ana.page.getByRole("heading", { name: "<script>harmed=true</script>" }).first().waitFor();
        assert.equal(await ana.page.evaluate(() => window.harmed), false);
    });
    // The parser that takes scripts and styles out tells the policy of them on the way; above it is seen that none was run.
    ana.faults = ana.faults.filter((fault) => !/^(Executing|Applying) inline/.test(fault));
}
