// Keys: who one is to others, the backup of what one can read, and comparing emoji.
import { ClientEvent } from "matrix-js-sdk";
import { type CryptoApi, CryptoEvent, type ShowSasCallbacks, VerificationPhase, type VerificationRequest, VerificationRequestEvent, type Verifier, VerifierEvent, decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index.js";
import { client } from "./account.svelte";
import { confirmed } from "./dialogs.svelte";
import { holdKey } from "./recovery";
import { session } from "./session.svelte";

/**
 * What is missing until one's messages can be read on every device, and by nobody else:
 * "none": nothing; "setup": no keys of the account yet; "backup": keys, but nothing that survives this device; "verify": the account has keys, and
 * this device is not signed by them.
 */
export type Need = "unknown" | "none" | "setup" | "backup" | "verify";

const crypto = (): CryptoApi => {
    const api = client.getCrypto();
    if (!api) throw new Error("no crypto");
    return api;
};

class Keys {
    need = $state<Need>("unknown");
    /** Grows when the trust in someone may have changed. */
    version = $state(0);
    request = $state.raw<VerificationRequest | undefined>();

    start() {
        const again = () => {
            this.version++;
            void this.look();
        };
        client.on(CryptoEvent.KeysChanged, again);
        client.on(CryptoEvent.UserTrustStatusChanged, again);
        client.on(CryptoEvent.KeyBackupStatus, again);
        client.on(CryptoEvent.DevicesUpdated, again);
        client.on(ClientEvent.AccountData, (event) => event.getType().startsWith("m.secret_storage") && again());
        client.on(CryptoEvent.VerificationRequestReceived, (request) => {
            if (!this.request || !request.pending) this.request = request;
        });
        void this.look();
        if (session.password) void this.begin();
    }

    /** Of a new account: keys at once, while the password is known and nothing needs to be asked. */
    private async begin() {
        const empty = !(await crypto().userHasCrossSigningKeys(undefined, true));
        if (empty) await crypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: confirmed }).catch((error: unknown) => console.warn(error));
        session.password = undefined;
        await this.look();
    }

    async look() {
        try {
            const api = crypto();
            if (!(await api.userHasCrossSigningKeys(undefined, true))) this.need = "setup";
            else if (!(await api.getDeviceVerificationStatus(client.getSafeUserId(), client.getDeviceId() ?? ""))?.crossSigningVerified) this.need = "verify";
            else this.need = (await api.getActiveSessionBackupVersion()) && (await client.secretStorage.getDefaultKeyId()) ? "none" : "backup";
        } catch (error) {
            console.warn(error);
        }
    }

    /** Makes a recovery key, and with it a place for secrets and a backup. What there was is replaced. The key is only ever shown once. */
    async makeRecovery(): Promise<string> {
        const api = crypto();
        const made = await api.createRecoveryKeyFromPassphrase();
        holdKey(made.privateKey);
        try {
            await api.bootstrapCrossSigning({ authUploadDeviceSigningKeys: confirmed, setupNewCrossSigning: this.need === "verify" });
            await api.bootstrapSecretStorage({ createSecretStorageKey: async () => made, setupNewSecretStorage: true, setupNewKeyBackup: true });
            await api.checkKeyBackupAndEnable();
        } finally {
            holdKey(undefined);
        }
        await this.look();
        return made.encodedPrivateKey ?? "";
    }

    /** Makes this device one's own with the recovery key, and reads what is in the backup. Throws if the key is wrong. */
    async recover(typed: string): Promise<void> {
        const api = crypto();
        const key = decodeRecoveryKey(typed);
        const id = await client.secretStorage.getDefaultKeyId();
        const info = id ? (await client.secretStorage.getKey(id))?.[1] : undefined;
        if (!info || !(await client.secretStorage.checkKey(key, info))) throw new Error("wrong key");
        holdKey(key);
        try {
            await api.bootstrapCrossSigning({});
            await api.loadSessionBackupPrivateKeyFromSecretStorage();
            await api.checkKeyBackupAndEnable();
        } finally {
            holdKey(undefined);
        }
        void api.restoreKeyBackup().catch((error: unknown) => console.warn(error));
        await this.look();
    }

    async verifyOwn() {
        this.request = await crypto().requestOwnUserVerification();
    }

    async verifyUser(user: string, room: string) {
        this.request = await crypto().requestVerificationDM(user, room);
    }

    async trusts(user: string): Promise<boolean> {
        return (await crypto().getUserVerificationStatus(user)).isCrossSigningVerified();
    }

    async trustsDevice(device: string): Promise<boolean> {
        return (await crypto().getDeviceVerificationStatus(client.getSafeUserId(), device))?.crossSigningVerified ?? false;
    }
}

export const keys = new Keys();

/** One comparison of emoji, step by step. */
export class Comparison {
    phase = $state<VerificationPhase>(VerificationPhase.Unsent);
    sas = $state.raw<ShowSasCallbacks | undefined>();
    confirmed = $state(false);
    private verifier: Verifier | undefined;

    constructor(readonly request: VerificationRequest) {
        request.on(VerificationRequestEvent.Change, this.changed);
        this.changed();
    }

    private changed = () => {
        this.phase = this.request.phase;
        const verifier = this.request.verifier;
        if (verifier && verifier !== this.verifier) this.follow(verifier);
        // One of the two has to begin, and who asked does.
        else if (this.phase === VerificationPhase.Ready && this.request.initiatedByMe && !verifier) {
            void this.request.startVerification("m.sas.v1").then((begun) => this.follow(begun), console.warn);
        }
        if (this.phase === VerificationPhase.Done) keys.version++;
    };

    private follow(verifier: Verifier) {
        if (verifier === this.verifier) return;
        this.verifier = verifier;
        verifier.on(VerifierEvent.ShowSas, (sas) => (this.sas = sas));
        this.sas = verifier.getShowSasCallbacks() ?? undefined;
        verifier.verify().catch((error: unknown) => console.warn(error));
    }

    accept = () => this.request.accept();

    same() {
        this.confirmed = true;
        void this.sas?.confirm();
    }

    different = () => this.sas?.mismatch();

    close() {
        this.request.off(VerificationRequestEvent.Change, this.changed);
        if (this.request.pending) void this.request.cancel().catch(console.warn);
    }
}
