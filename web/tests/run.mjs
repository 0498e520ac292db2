// The web client in a real browser against the real server: node run.mjs PATH_OF_VATRA. Prints 'N passed, N failed'.
import { rmSync } from "node:fs";
import { Person, Server, browser, summary, watch } from "./harness.mjs";
import { restart, together } from "./together.mjs";

const server = new Server(process.argv[2]);
if (process.env.VATRA_URL) Object.assign(server, { url: process.env.VATRA_URL, port: new URL(process.env.VATRA_URL).port });
else await server.start();
const name = (base) => (process.env.VATRA_URL ? `${base}${Date.now() % 100000}` : base);
const ana = new Person(server, name("ana"));
const bogdan = new Person(server, name("bogdan"));
watch(ana, bogdan);
let code = 1;
try {
    const room = await together(server, ana, bogdan);
    await restart(server, ana, bogdan, room);
    code = summary();
} finally {
    await browser.close();
    await server.stop();
    rmSync(server.folder, { recursive: true, force: true });
}
process.exit(code);
