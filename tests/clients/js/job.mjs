// The job of two people, done with matrix-js-sdk: node job.mjs URL meet|again STATE_FILE PICTURE.
import "core-js/actual/index.js";
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as sdk from "matrix-js-sdk";

const [url, step, stateFile, pictureFile] = process.argv.slice(2);
const picture = readFileSync(pictureFile);

async function register(name) {
    const guest = sdk.createClient({ baseUrl: url });
    const password = `${name} has a password`;
    const answer = await guest.registerRequest({ username: name, password, auth: { type: "m.login.dummy" } });
    return { userId: answer.user_id, accessToken: answer.access_token, deviceId: answer.device_id };
}

async function start(account) {
    const client = sdk.createClient({ baseUrl: url, ...account, timelineSupport: true });
    await client.startClient({ initialSyncLimit: 30, lazyLoadMembers: true });
    await until(() => client.isInitialSyncComplete(), "the first sync");
    return client;
}

async function until(test, what) {
    for (let tries = 0; tries < 600; tries++) {
        const found = await test();
        if (found) return found;
        await sleep(50);
    }
    throw new Error(`not seen: ${what}`);
}

const hears = (client, room, text) => () =>
    client.getRoom(room)?.getLiveTimeline().getEvents().find((event) => event.getContent().body === text);

async function seeTyping(writer, watcher, room) {
    const types = () => watcher.getRoom(room).getMember(writer.getUserId()).typing;
    await writer.sendTyping(room, true, 20_000);
    await until(types, "typing");
    await writer.sendTyping(room, false, 0);
    await until(() => !types(), "the end of typing");
}

async function sharePicture(sender, receiver, room, name) {
    const { content_uri: uri } = await sender.uploadContent(picture, { type: "image/png", name });
    await sender.sendMessage(room, { msgtype: "m.image", body: name, url: uri });
    const shown = await until(hears(receiver, room, name), "the picture");
    assert.equal(shown.getContent().url, uri);
    await pictureIsThere(receiver, uri);
    return uri;
}

/** The picture byte by byte, and its thumbnail, from the authenticated endpoints. */
async function pictureIsThere(client, uri) {
    const load = async (...size) => {
        const http = client.mxcUrlToHttp(uri, ...size, false, true, true);
        const answer = await fetch(http, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
        assert.equal(answer.status, 200, http);
        return Buffer.from(await answer.arrayBuffer());
    };
    assert.deepEqual(await load(undefined, undefined, undefined), picture);
    const small = await load(320, 240, "scale");
    assert.equal(small.toString("latin1", 1, 4), "PNG");
    const [width, height] = [small.readUInt32BE(16), small.readUInt32BE(20)];
    assert.ok(240 < width && width < 400 && height < width, `the thumbnail has ${width} x ${height}`);
}

async function meet() {
    const accounts = { carmen: await register("carmen"), dan: await register("dan") };
    const [carmen, dan] = [await start(accounts.carmen), await start(accounts.dan)];
    await carmen.setDisplayName("Carmen");
    const { room_id: room } = await carmen.createRoom({ name: "Cuptor", invite: [dan.getUserId()] });
    await until(() => dan.getRoom(room)?.getMyMembership() === "invite", "the invitation");
    await dan.joinRoom(room);
    await until(() => dan.getRoom(room)?.getMyMembership() === "join", "the join");
    assert.equal(dan.getRoom(room).name, "Cuptor");

    await carmen.sendTextMessage(room, "Salut!");
    const heard = await until(hears(dan, room, "Salut!"), "the message");
    const read = new Set();
    carmen.on(sdk.RoomEvent.Receipt, (event) => {
        for (const [id, kinds] of Object.entries(event.getContent())) {
            if (dan.getUserId() in (kinds["m.read"] ?? {})) read.add(id);
        }
    });
    await dan.sendReadReceipt(heard);
    await until(() => read.has(heard.getId()), "the receipt");
    await dan.sendEvent(room, "m.reaction", {
        "m.relates_to": { rel_type: "m.annotation", event_id: heard.getId(), key: "🔥" },
    });

    await seeTyping(carmen, dan, room);
    const pictures = [await sharePicture(carmen, dan, room, "fire0.png")];
    const said = ["Salut!", "fire0.png"];
    writeFileSync(stateFile, JSON.stringify({ accounts, room, said, pictures }));
    carmen.stopClient();
    dan.stopClient();
}

async function again() {
    const state = JSON.parse(readFileSync(stateFile, "utf8"));
    const [carmen, dan] = [await start(state.accounts.carmen), await start(state.accounts.dan)];
    const room = dan.getRoom(state.room);
    while (await dan.scrollback(room, 10).then((scrolled) => scrolled.oldState.paginationToken));
    const history = room.getLiveTimeline().getEvents().map((event) => event.getContent().body);
    for (const text of state.said) assert.ok(history.includes(text), `${text} is missing`);
    const text = `again ${state.said.length}`;
    await carmen.sendTextMessage(state.room, text);
    await until(hears(dan, state.room, text), text);
    for (const uri of state.pictures) await pictureIsThere(dan, uri);
    const name = `fire${state.pictures.length}.png`;
    state.pictures.push(await sharePicture(carmen, dan, state.room, name));
    await seeTyping(carmen, dan, state.room);
    state.said.push(text, name);
    writeFileSync(stateFile, JSON.stringify(state));
    carmen.stopClient();
    dan.stopClient();
}

const watchdog = sleep(100_000).then(() => {
    console.error("took too long");
    process.exit(1);
});
void watchdog;
try {
    await { meet, again }[step]();
    process.exit(0);
} catch (error) {
    console.error(error);
    process.exit(1);
}
