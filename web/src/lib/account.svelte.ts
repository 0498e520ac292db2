// The SDK's client of who is signed in: started, watched and ended here. Only loaded after signing in.
import {
    ClientEvent,
    HttpApiEvent,
    IndexedDBStore,
    MatrixClient,
    MemoryStore,
    SyncState,
} from "matrix-js-sdk";
import { homeserver } from "./api";
import type { Logger } from "matrix-js-sdk/lib/logger.js";
import { secretStorageKey, cacheSecretStorageKey } from "./recovery";
import { type Session, session } from "./session.svelte";
import { write } from "./local";

/** Set before any view that uses it is shown. */
export let client: MatrixClient;

export type Phase = "starting" | "crypto" | "syncing" | "ready" | "elsewhere" | "failed";

class Account {
    phase = $state<Phase>("starting");
    /** The last poll came back. */
    online = $state(true);
    error = $state<unknown>();
    /** It has taken so long that one should say so. */
    slow = $state(false);
    /** One's own name and picture. */
    profile = $state.raw<{ displayname?: string; avatar_url?: string }>({});
}

export const account = new Account();

const databases = (of: Session) => ({ sync: `vatra:${of.userId}:${of.deviceId}`, crypto: `vatra-crypto:${of.userId}:${of.deviceId}` });

// The SDK tells a lot; what went wrong is what matters.
const logger: Logger = { trace() {}, debug() {}, info() {}, warn: console.warn, error: console.error, getChild: () => logger };

// One tab at a time: two would take each other's messages to this device, and with them keys.
let release: (() => void) | undefined;

async function lock(steal: boolean): Promise<boolean> {
    if (!navigator.locks) return true;
    return await new Promise<boolean>((resolve) => {
        const held = navigator.locks.request("vatra", steal ? { steal } : { ifAvailable: true }, async (lock) => {
            resolve(lock !== null);
            if (lock) await new Promise<void>((done) => (release = done));
        });
        held.catch(() => {
            // Another tab has taken over.
            client?.stopClient();
            account.phase = "elsewhere";
        });
    });
}

export async function start(of: Session, steal = false): Promise<void> {
    account.phase = "starting";
    account.error = undefined;
    const slow = setTimeout(() => (account.slow = true), 6000);
    try {
        if (!(await lock(steal))) {
            account.phase = "elsewhere";
            return;
        }
        const names = databases(of);
        // Without the SDK's own queue: the outbox is ours.
        const make = (store: IndexedDBStore | MemoryStore) => {
            client = new MatrixClient({
                baseUrl: homeserver,
                ...of,
                store,
                logger,
                timelineSupport: true,
                verificationMethods: ["m.sas.v1"],
                cryptoCallbacks: { getSecretStorageKey: secretStorageKey, cacheSecretStorageKey },
            });
        };
        const store = new IndexedDBStore({ indexedDB, dbName: names.sync, localStorage });
        make(store);
        try {
            await store.startup();
        } catch (error) {
            // A private window of some browsers has no database. Then everything is asked anew.
            console.warn("no database:", error);
            make(new MemoryStore({ localStorage }));
        }
        client.on(HttpApiEvent.SessionLoggedOut, () => void forget(of));
        client.on(ClientEvent.Sync, (state) => {
            account.online = state !== SyncState.Error && state !== SyncState.Reconnecting;
            if (state === SyncState.Prepared || state === SyncState.Syncing) {
                account.phase = "ready";
                clearTimeout(slow);
                account.slow = false;
            }
        });
        account.phase = "crypto";
        await client.initRustCrypto({ cryptoDatabasePrefix: names.crypto });
        account.phase = "syncing";
        await client.startClient({
            initialSyncLimit: 20,
            lazyLoadMembers: true,
        });
    } catch (error) {
        console.error(error);
        clearTimeout(slow);
        account.error = error;
        account.phase = "failed";
    }
}

export async function lookAtProfile(): Promise<void> {
    account.profile = await client.getProfileInfo(client.getSafeUserId()).catch(() => account.profile);
}

/** Tries now what the SDK would try in a while. */
export function retry() {
    client.retryImmediately();
}

/** Ends the session here and on the server, and with it what this browser kept of the account. */
export async function signOut(): Promise<void> {
    const of = session.current;
    if (!of) return;
    await client.logout(true).catch((error: unknown) => console.warn("not signed out on the server:", error));
    await forget(of);
}

async function forget(of: Session): Promise<void> {
    client.stopClient();
    await client.clearStores({ cryptoDatabasePrefix: databases(of).crypto }).catch((error: unknown) => console.warn("not cleared:", error));
    for (const key of ["outbox", "drafts"]) write(`${key}.${of.userId}`, undefined);
    release?.();
    session.set(undefined);
    location.hash = "#/login";
    location.reload();
}
