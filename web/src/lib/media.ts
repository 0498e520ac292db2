// Pictures and files: fetched with one's token, decrypted where needed, shown as blobs. Uploads with their progress.
import { client } from "./account.svelte";
import { fileName } from "./text";

export interface EncryptedFile {
    url: string;
    key: JsonWebKey;
    iv: string;
    hashes: Record<string, string>;
    v: string;
}

// What a browser shows without running anything. Everything else is only ever saved.
const SHOWN = /^(image\/(png|jpeg|gif|webp|avif|bmp)|audio\/(mpeg|ogg|webm|wav|mp4|aac|flac|x-m4a)|video\/(mp4|webm|ogg))$/;
const MOST_BYTES = 48_000_000;

interface Held {
    url: Promise<string>;
    users: number;
    size: number;
}

// Least recently used first. What nobody shows goes when there is too much.
const held = new Map<string, Held>();

function trim() {
    let total = 0;
    for (const one of held.values()) total += one.size;
    for (const [key, one] of held) {
        if (total <= MOST_BYTES) return;
        if (one.users > 0) continue;
        total -= one.size;
        held.delete(key);
        void one.url.then(URL.revokeObjectURL, () => {});
    }
}

export interface Source {
    mxc?: string;
    file?: EncryptedFile;
    type?: string;
    /** A smaller picture of this size is enough. */
    size?: number;
}

async function download(source: Source): Promise<Blob> {
    const mxc = source.file?.url ?? source.mxc ?? "";
    const size = source.file ? undefined : source.size;
    const url = client.mxcUrlToHttp(mxc, size, size, size ? "scale" : undefined, false, true, true);
    if (!url) throw new Error("no such media");
    const answer = await fetch(url, { headers: { authorization: `Bearer ${client.getAccessToken()}` } });
    if (!answer.ok) throw new Error(`media: ${answer.status}`);
    const said = (source.file ? source.type : answer.headers.get("content-type"))?.split(";")[0]?.trim() ?? "";
    const type = SHOWN.test(said) ? said : "application/octet-stream";
    const data = await answer.arrayBuffer();
    if (!source.file) return new Blob([data], { type });
    const { decryptAttachment } = await import("matrix-encrypt-attachment");
    return new Blob([await decryptAttachment(data, source.file as never)], { type });
}

/** A blob's URL, until `letGo` with the same source. */
export function hold(source: Source): Promise<string> {
    const key = `${source.file?.url ?? source.mxc} ${source.size ?? ""}`;
    const known = held.get(key);
    if (known) {
        held.delete(key);
        held.set(key, known);
        known.users++;
        return known.url;
    }
    const one: Held = { url: Promise.resolve(""), users: 1, size: 0 };
    one.url = download(source).then((blob) => {
        one.size = blob.size;
        trim();
        return URL.createObjectURL(blob);
    });
    one.url.catch(() => held.delete(key));
    held.set(key, one);
    return one.url;
}

export function letGo(source: Source) {
    const one = held.get(`${source.file?.url ?? source.mxc} ${source.size ?? ""}`);
    if (one) one.users--;
    trim();
}

/** Lets the browser save it, as what it is called, never as what it says it is. */
export async function save(source: Source, name: unknown): Promise<void> {
    const blob = await download({ ...source, size: undefined });
    const url = URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" }));
    const anchor = document.createElement("a");
    anchor.href = url;
    anchor.download = fileName(name);
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

async function picture(file: Blob): Promise<ImageBitmap | undefined> {
    if (!SHOWN.test(file.type) || !file.type.startsWith("image/")) return undefined;
    return await createImageBitmap(file).catch(() => undefined);
}

/** A picture of at most `most` pixels a side, as JPEG. */
export async function shrink(bitmap: ImageBitmap, most: number): Promise<{ blob: Blob; w: number; h: number } | undefined> {
    const scale = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
    const [w, h] = [Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale))];
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [w, h];
    canvas.getContext("2d")?.drawImage(bitmap, 0, 0, w, h);
    const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/jpeg", 0.82));
    return blob ? { blob, w, h } : undefined;
}

type Progress = (part: number) => void;

async function put(blob: Blob, encrypted: boolean, abort: AbortController, progress?: Progress): Promise<{ url?: string; file?: object }> {
    const options = {
        abortController: abort,
        progressHandler: ({ loaded, total }: { loaded: number; total: number }) => progress?.(total ? loaded / total : 0),
    };
    if (!encrypted) {
        const { content_uri } = await client.uploadContent(blob, { ...options, includeFilename: false });
        return { url: content_uri };
    }
    const { encryptAttachment } = await import("matrix-encrypt-attachment");
    const { data, info } = await encryptAttachment(await blob.arrayBuffer());
    const { content_uri } = await client.uploadContent(new Blob([data]), { ...options, includeFilename: false, type: "application/octet-stream" });
    return { file: { ...info, url: content_uri } };
}

/** Uploads a file and makes the content of the message that shows it. */
export async function upload(file: File, encrypted: boolean, abort: AbortController, progress: Progress): Promise<Record<string, unknown>> {
    const name = fileName(file.name);
    const kind = file.type.split("/")[0] ?? "";
    const info: Record<string, unknown> = { mimetype: file.type || "application/octet-stream", size: file.size };
    const bitmap = await picture(file);
    if (bitmap) [info.w, info.h] = [bitmap.width, bitmap.height];
    // The server cannot make a small picture of what it cannot read.
    const small = encrypted && bitmap && file.size > 100_000 ? await shrink(bitmap, 800) : undefined;
    if (small) {
        const { file: thumbnail } = await put(small.blob, true, abort);
        info.thumbnail_file = thumbnail;
        info.thumbnail_info = { mimetype: "image/jpeg", size: small.blob.size, w: small.w, h: small.h };
    }
    bitmap?.close();
    const msgtype = bitmap ? "m.image" : kind === "video" || kind === "audio" ? `m.${kind}` : "m.file";
    return { msgtype, body: name, filename: name, info, ...(await put(file, encrypted, abort, progress)) };
}

/** A picture of a person or room: a square, and not larger than needed. */
export async function uploadAvatar(file: File): Promise<string> {
    const bitmap = await picture(file);
    if (!bitmap) throw new Error("no picture");
    const side = Math.min(bitmap.width, bitmap.height);
    const square = await createImageBitmap(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side);
    const small = await shrink(square, 512);
    const { content_uri } = await client.uploadContent(small?.blob ?? file, { includeFilename: false });
    return content_uri;
}
