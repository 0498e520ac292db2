// After the build: what the server sends compressed is compressed here, once and as well as can be. Holds the budget of the first load as well.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const dist = new URL("dist/", import.meta.url);
// Everything before the crypto chunk, in bytes as they are sent with gzip: a phone on a slow network waits for these.
const BUDGET = 400_000;
let first = 0;

for (const name of readdirSync(dist, { recursive: true })) {
    if (!/\.(html|js|css|svg|wasm|md)$/.test(name)) continue;
    const file = new URL(name, dist);
    const data = readFileSync(file);
    const gzip = gzipSync(data, { level: 9 });
    const params = { [constants.BROTLI_PARAM_QUALITY]: data.length > 2_000_000 ? 9 : 11, [constants.BROTLI_PARAM_SIZE_HINT]: data.length };
    writeFileSync(new URL(`${name}.gz`, dist), gzip);
    writeFileSync(new URL(`${name}.br`, dist), brotliCompressSync(data, { params }));
    if (!/crypto|\.md$/.test(name)) first += gzip.length;
}
console.log(`first load: ${Math.round(first / 1000)} kB with gzip, of ${BUDGET / 1000} kB allowed`);
if (first > BUDGET) process.exit(1);
