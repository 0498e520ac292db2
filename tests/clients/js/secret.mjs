// People whisper, done with matrix-js-sdk and its Rust crypto: node secret.mjs URL FACTS_FILE.
// Two talk both ways; one of them verifies the other, signs in on a new device, restores the backup and reads on. Writes the secrets that it
// came to know, so that it can be checked that no one else has.
import "core-js/actual/index.js";
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as sdk from "matrix-js-sdk";
import { VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";

const [url, factsFile] = process.argv.slice(2);
const quiet = { trace() {}, debug() {}, info() {}, warn() {}, error: console.error, getChild: () => quiet };

async function until(test, what, seconds = 30) {
    const end = Date.now() + seconds * 1000;
    while (Date.now() < end) {
        const found = await test();
        if (found) return found;
        await sleep(25);
    }
    throw new Error(`not seen: ${what}`);
}

/** A client with keys in memory only. What it keeps in secret storage is encrypted with `storage.key`. */
async function start(account, storage = {}) {
    const client = sdk.createClient({
        baseUrl: url,
        ...account,
        logger: quiet,
        verificationMethods: ["m.sas.v1"],
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => (storage.key ? [Object.keys(keys)[0], storage.key] : null),
            cacheSecretStorageKey: (_id, _info, key) => (storage.key = key),
        },
    });
    await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 20 });
    await until(() => client.isInitialSyncComplete(), "the first sync");
    return client;
}

const password = (name) => `${name} has a password`;

async function register(name) {
    const guest = sdk.createClient({ baseUrl: url, logger: quiet });
    const auth = { type: "m.login.dummy" };
    const answer = await guest.registerRequest({ username: name, password: password(name), auth });
    return { userId: answer.user_id, accessToken: answer.access_token, deviceId: answer.device_id };
}

async function login(name) {
    const guest = sdk.createClient({ baseUrl: url, logger: quiet });
    const identifier = { type: "m.id.user", user: name };
    const answer = await guest.loginRequest({ type: "m.login.password", identifier, password: password(name) });
    return { userId: answer.user_id, accessToken: answer.access_token, deviceId: answer.device_id };
}

const said = [];
const find = (client, room, text) =>
    client.getRoom(room)?.getLiveTimeline().getEvents().find((event) => event.getContent().body === text);

async function hears(client, room, text) {
    const event = await until(() => find(client, room, text), `"${text}" by ${client.getDeviceId()}`);
    assert.ok(event.isEncrypted() && !event.isDecryptionFailure());
}

async function whisper(speaker, listeners, room, text) {
    said.push(text);
    await speaker.sendMessage(room, { msgtype: "m.text", body: text });
    await Promise.all(listeners.map((client) => hears(client, room, text)));
}

const uia = (name) => async (request) => {
    const identifier = { type: "m.id.user", user: name };
    return await request({ type: "m.login.password", identifier, password: password(name) });
};

/** Both compare emoji, and each signs the other. */
async function verify(one, two, room) {
    const request = await one.getCrypto().requestVerificationDM(two.getUserId(), room);
    const other = await until(
        () => two.getCrypto().findVerificationRequestDMInProgress(room, one.getUserId()),
        "the request to verify",
    );
    await other.accept();
    await until(() => request.phase === VerificationPhase.Ready, "the acceptance");
    const starting = await request.startVerification("m.sas.v1");
    await until(() => other.verifier, "the start");
    const emoji = [];
    const done = [starting, other.verifier].map((verifier) => {
        const show = (sas) => {
            emoji.push(JSON.stringify(sas.sas.emoji));
            return sas.confirm();
        };
        verifier.on(VerifierEvent.ShowSas, show);
        return verifier.verify();
    });
    await Promise.all(done);
    assert.equal(emoji.length, 2);
    assert.equal(emoji[0], emoji[1]);
    const verified = async (client, user) => (await client.getCrypto().getUserVerificationStatus(user)).isCrossSigningVerified();
    await until(() => verified(one, two.getUserId()), "one's trust");
    await until(() => verified(two, one.getUserId()), "the other's trust");
}

const storage = {};
const [dora, emil] = await Promise.all([start(await register("dora"), storage), start(await register("emil"))]);
const crypto = dora.getCrypto();
await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: uia("dora") });
const recovery = await crypto.createRecoveryKeyFromPassphrase();
await crypto.bootstrapSecretStorage({
    createSecretStorageKey: async () => recovery,
    setupNewSecretStorage: true,
    setupNewKeyBackup: true,
});
storage.key = recovery.privateKey;
await emil.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: uia("emil") });

const initial_state = [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }];
const created = await dora.createRoom({ invite: [emil.getUserId()], is_direct: true, preset: "trusted_private_chat", initial_state });
const room = created.room_id;
await until(() => emil.getRoom(room)?.getMyMembership() === "invite", "the invite");
await emil.joinRoom(room);
await until(() => dora.getRoom(room)?.getJoinedMemberCount() === 2, "the join");
await until(() => emil.getRoom(room)?.getMyMembership() === "join", "the own join");
await whisper(dora, [emil], room, "meet me at the old mill");
await whisper(emil, [dora], room, "bring the green lantern");

await verify(dora, emil, room);

// A new device: it has nothing but the password and the recovery key, and is signed by its user.
const backedUp = async () => {
    // Not by getKeyBackupInfo, which remembers what it was told first.
    const prefix = sdk.ClientPrefix.V3;
    const info = await dora.http.authedRequest(sdk.Method.Get, "/room_keys/version", undefined, undefined, { prefix });
    return info.count >= 2;
};
await until(backedUp, "the backup");
const tablet = await start(await login("dora"), { key: recovery.privateKey });
await tablet.getCrypto().loadSessionBackupPrivateKeyFromSecretStorage();
const restored = await tablet.getCrypto().restoreKeyBackup();
assert.ok(restored.imported >= 2, `${restored.imported} keys restored`);
for (const text of said) await hears(tablet, room, text);
await tablet.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: uia("dora") });
await until(async () => {
    const seen = await emil.getCrypto().getDeviceVerificationStatus(dora.getUserId(), tablet.getDeviceId());
    return seen?.crossSigningVerified;
}, "that the new device is trusted");
await whisper(tablet, [dora, emil], room, "the miller must not know");
await whisper(emil, [dora, tablet], room, "he never leaves before dawn");

// The new device goes again; who is left talks on.
await tablet.logout(true);
tablet.stopClient();
await until(async () => {
    const devices = (await emil.getCrypto().getUserDeviceInfo([dora.getUserId()])).get(dora.getUserId());
    return devices && !devices.has(tablet.getDeviceId());
}, "that the device is gone");
await whisper(emil, [dora], room, "then we go at noon");

const bundle = await crypto.exportSecretsBundle();
const signing = bundle.cross_signing;
const sessions = (await crypto.exportRoomKeys()).map((session) => session.session_key);
const secrets = [signing.master_key, signing.self_signing_key, signing.user_signing_key, ...sessions];
secrets.push(bundle.backup.key, Buffer.from(recovery.privateKey).toString("base64"));
const own = await crypto.getOwnDeviceKeys();
writeFileSync(factsFile, JSON.stringify({ said, secrets, public: [own.ed25519, own.curve25519] }));
for (const client of [dora, emil]) client.stopClient();
process.exit(0);
