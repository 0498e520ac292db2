// The browser's local storage, as JSON, under names of our own. It may be full or forbidden: then what was to be kept is gone with the page.

export function read<T>(key: string): T | undefined {
    try {
        const text = localStorage.getItem(`vatra.${key}`);
        return text === null ? undefined : (JSON.parse(text) as T);
    } catch {
        return undefined;
    }
}

export function write(key: string, value: unknown) {
    try {
        if (value === undefined) localStorage.removeItem(`vatra.${key}`);
        else localStorage.setItem(`vatra.${key}`, JSON.stringify(value));
    } catch (error) {
        console.warn("not kept:", key, error);
    }
}

/** A name that nothing else has. `crypto.randomUUID` is missing where the page came without TLS. */
export function unique(): string {
    return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
