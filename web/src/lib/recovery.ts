// The key of the secret storage while it is needed: typed by a person, or just made. Kept in memory only.

let held: Uint8Array<ArrayBuffer> | undefined;

export function holdKey(key: Uint8Array<ArrayBuffer> | undefined) {
    held = key;
}

export async function secretStorageKey(asked: { keys: Record<string, unknown> }): Promise<[string, Uint8Array<ArrayBuffer>] | null> {
    const [id] = Object.keys(asked.keys);
    return held && id ? [id, held] : null;
}

export function cacheSecretStorageKey(_id: string, _info: unknown, key: Uint8Array) {
    held = new Uint8Array(key);
}
