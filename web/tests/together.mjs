// Two people in two browsers, in the open: what the client is for.
import assert from "node:assert/strict";
import { check, picture, sleep } from "./harness.mjs";

export async function together(server, ana, bogdan) {
    const room = "Kitchen table";

    await check("two people register", async () => {
        await Promise.all([ana.open(), bogdan.open()]);
        await ana.register();
        await bogdan.register();
    });

    await check("one opens a public room with a picture; the other finds it and joins by one click", async () => {
        await ana.link("New room").click();
        await ana.label("Name of the room").fill(room);
        await ana.label("Topic", { exact: true }).fill("What is for dinner");
        await ana.label("Anyone").check();
        await ana.page.setInputFiles('input[type="file"]', { name: "table.png", mimeType: "image/png", buffer: await picture(300, 200) });
        await ana.button("Create").click();
        await ana.composer().waitFor();
        await bogdan.page.reload();
        await bogdan.inside();
        await bogdan.button(`Join ${room}`).click();
        await bogdan.composer().waitFor();
        await ana.messages().getByText("bogdan came in").waitFor();
    });

    await check("they talk; what is Markdown becomes bold, and links are safe", async () => {
        await ana.say("Who is **hungry**? See https://example.org/menu.");
        await bogdan.messages().locator("strong", { hasText: "hungry" }).last().waitFor();
        const link = bogdan.messages().getByRole("link", { name: "https://example.org/menu" });
        assert.equal(await link.getAttribute("rel"), "noreferrer noopener");
        assert.equal(await link.getAttribute("target"), "_blank");
        await bogdan.say("me");
        await ana.hears("me");
    });

    await check("one sees the other type", async () => {
        await bogdan.composer().pressSequentially("soup", { delay: 20 });
        await ana.text("bogdan is typing …").waitFor();
        await bogdan.composer().fill("");
        await ana.text("bogdan is typing …").waitFor({ state: "detached" });
    });

    await check("reply, reaction, edit and removal reach the other", async () => {
        await ana.act("me", "Reply");
        await ana.say("then set the table");
        await bogdan.message("then set the table").getByRole("button", { name: /bogdan me/ }).waitFor();
        await bogdan.act("then set the table", "React");
        await bogdan.button("React with 👍").click();
        await ana.button("👍 by bogdan").waitFor();
        await bogdan.button("👍 by bogdan").click();
        await ana.button("👍 by bogdan").waitFor({ state: "detached" });
        await bogdan.say("with forkks");
        await ana.hears("with forkks");
        await bogdan.composer().press("ArrowUp");
        await bogdan.text("Editing your message").waitFor();
        await bogdan.say("with forks");
        await ana.hears("with forks");
        await ana.message("with forks").getByText("(edited)").waitFor();
        await ana.say("no, with hands");
        await bogdan.hears("no, with hands");
        await ana.act("no, with hands", "Remove");
        await ana.page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
        await bogdan.hears("Removed message");
        await bogdan.messages().getByText("no, with hands").waitFor({ state: "detached" });
    });

    await check("one sees that the other has read it", async () => {
        await bogdan.page.bringToFront();
        await ana.say("read this");
        await bogdan.hears("read this");
        await ana.page.getByRole("img", { name: "Seen by bogdan" }).first().waitFor();
    });

    await check("pictures by button, by paste and by drop, with a preview, small and in full size", async () => {
        const buffer = await picture(900, 600, "fire");
        await ana.page.locator('form input[type="file"]').setInputFiles({ name: "fire.png", mimeType: "image/png", buffer });
        await ana.page.getByRole("list", { name: "Files to send" }).getByText("fire.png").waitFor();
        await ana.button("Send", { exact: true }).click();
        const shown = bogdan.button("Picture fire.png");
        await shown.locator("img").waitFor();
        const sizes = await shown.locator("img").evaluate(async (image) => (await image.decode(), [image.naturalWidth, image.naturalHeight]));
        assert.ok(sizes[0] > 100 && sizes[0] <= 900, `${sizes}`);
        await shown.click();
        const whole = bogdan.page.getByRole("dialog").locator("img");
        await whole.waitFor();
        assert.equal(await whole.evaluate(async (image) => (await image.decode(), image.naturalWidth)), 900);
        await bogdan.page.keyboard.press("Escape");
        await whole.waitFor({ state: "detached" });

        for (const [how, name] of [["paste", "pasted.png"], ["drop", "dropped.png"]]) {
            await ana.page.evaluate(
                ([how, name, base64]) => {
                    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
                    const data = new DataTransfer();
                    data.items.add(new File([bytes], name, { type: "image/png" }));
                    const target = document.querySelector("textarea");
                    const event = how === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }) : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
                    target.dispatchEvent(event);
                },
                [how, name, (await picture(120, 90)).toString("base64")],
            );
            await ana.page.getByRole("list", { name: "Files to send" }).getByText(name).waitFor();
            await ana.button("Send", { exact: true }).click();
            await bogdan.button(`Picture ${name}`).locator("img").waitFor();
        }
    });

    await check("a file arrives as it was sent", async () => {
        await bogdan.page.locator('form input[type="file"]').setInputFiles({ name: "recipe.txt", mimeType: "text/plain", buffer: Buffer.from("salt\n") });
        await bogdan.button("Send", { exact: true }).click();
        await ana.message("recipe.txt").waitFor();
        const [download] = await Promise.all([ana.page.waitForEvent("download"), ana.button("Save recipe.txt").click()]);
        assert.equal(download.suggestedFilename(), "recipe.txt");
        const chunks = [];
        for await (const chunk of await download.createReadStream()) chunks.push(chunk);
        assert.equal(Buffer.concat(chunks).toString(), "salt\n");
    });

    await check("search finds it and leads there", async () => {
        await ana.go("#/search");
        await ana.page.getByPlaceholder("Words to look for").fill("hungry");
        await ana.button("Search", { exact: true }).click();
        await ana.text("1 message found").waitFor();
        await ana.link(/hungry/).click();
        await ana.hears("hungry");
        await ana.link("Find rooms").click();
        await ana.enter(room);
    });

    await check("unread messages are counted, marked, and read", async () => {
        await bogdan.go("#/settings");
        await ana.say("one more");
        await ana.say("and another");
        const entry = bogdan.page.getByRole("navigation", { name: "Rooms" }).getByRole("link", { name: room });
        await entry.getByText("2 unread").waitFor();
        await bogdan.enter(room);
        await bogdan.messages().getByText("New messages").waitFor();
        await entry.getByText("2 unread").waitFor({ state: "detached" });
    });

    await check("a private room: invite, decline, invite again, accept; roles; out and banned", async () => {
        await ana.link("New room").click();
        await ana.label("Name of the room").fill("Attic");
        await ana.label("Invite people").fill("bogdan");
        await ana.button("Create").click();
        await ana.composer().waitFor();
        const rooms = bogdan.page.getByRole("navigation", { name: "Rooms" });
        await rooms.getByRole("link", { name: "Attic" }).click();
        await bogdan.button("Decline").click();
        await rooms.getByRole("link", { name: "Attic" }).waitFor({ state: "detached" });
        await ana.messages().getByText("bogdan declined the invitation").waitFor();
        await ana.link("People", { exact: true }).click();
        await ana.label("Invite people").fill("bogdan");
        await ana.button("Invite: @bogdan:localhost").click();
        await rooms.getByRole("link", { name: "Attic" }).click();
        await bogdan.button("Accept").click();
        await bogdan.composer().waitFor();
        await ana.button(/^bogdan @bogdan:localhost$/).click();
        await ana.label("Role").selectOption("Moderator");
        await ana.button(/bogdan .*Moderator/).click();
        await ana.button("Remove from room").click();
        await ana.page.getByRole("dialog").getByRole("button", { name: "Remove from room" }).click();
        await bogdan.text("You are not in this room.").waitFor();
        await ana.label("Invite people").fill("bogdan");
        await ana.button("Invite: @bogdan:localhost").click();
        await rooms.getByRole("link", { name: "Attic" }).click();
        await bogdan.button("Accept").click();
        await bogdan.composer().waitFor();
        await ana.button(/bogdan @bogdan:localhost/).click();
        await ana.button("Ban", { exact: true }).click();
        await ana.page.getByRole("dialog").getByLabel("Reason").fill("enough");
        await ana.page.getByRole("dialog").getByRole("button", { name: "Ban" }).click();
        await bogdan.text("You are not in this room.").waitFor();
        await ana.button(/bogdan .*Banned/).waitFor();
    });

    await check("a new name and picture are seen by the other", async () => {
        await bogdan.go("#/settings/profile");
        await bogdan.label("Name that others see").fill("Bogdan the Cook");
        await bogdan.button("Save").click();
        await bogdan.text("Saved").first().waitFor();
        await bogdan.page.setInputFiles('main input[type="file"]', { name: "me.png", mimeType: "image/png", buffer: await picture(200, 200) });
        await ana.enter(room);
        await ana.messages().getByText("bogdan is now called Bogdan the Cook").waitFor();
        await ana.messages().getByText("Bogdan the Cook has a new picture").waitFor();
    });

    await check("how loud a room is, and letters, are kept by the server", async () => {
        await ana.link("People", { exact: true }).click();
        await ana.label("Notify me of").selectOption("Nothing");
        await sleep(300);
        await ana.page.reload();
        await ana.inside();
        assert.equal(await ana.label("Notify me of").inputValue(), "mute");
        await ana.label("Notify me of").selectOption("Every message");
    });

    await check("languages, light and dark", async () => {
        await ana.go("#/settings/looks");
        await ana.label("Language").selectOption("ro");
        await ana.page.getByRole("heading", { name: "Setări" }).waitFor();
        await ana.label("Întunecat").check();
        assert.equal(await ana.page.evaluate(() => document.documentElement.dataset.theme), "dark");
        await ana.label("Ca sistemul").check();
        await ana.label("Limba").selectOption("en");
    });

    await check("a reload in the middle loses nothing that was typed or said", async () => {
        await ana.enter(room);
        await ana.composer().fill("half a thought");
        await ana.page.reload();
        await ana.inside();
        await ana.composer().waitFor();
        assert.equal(await ana.composer().inputValue(), "half a thought");
        await ana.composer().press("Enter");
        await bogdan.enter(room);
        await bogdan.hears("half a thought");
    });

    return room;
}

/** The server goes away while they talk, and comes back. */
export async function restart(server, ana, bogdan, room) {
    await check("while the server is away, what is said waits, also over a reload, and arrives once", async () => {
        await ana.enter(room);
        await bogdan.enter(room);
        await server.stop();
        await ana.say("is anybody there?");
        await ana.text("Waiting for the connection").first().waitFor({ timeout: 90_000 });
        await ana.say("hello?");
        await server.start();
        await bogdan.hears("hello?", { timeout: 90_000 });
        await bogdan.hears("is anybody there?");
        assert.equal(await bogdan.messages().getByText("is anybody there?", { exact: true }).count(), 1);
        await ana.text("Waiting for the connection").first().waitFor({ state: "detached" });
        await bogdan.say("I am back");
        await ana.hears("I am back", { timeout: 90_000 });
    });
}
