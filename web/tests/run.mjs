// The web client in a real browser against the real server: node run.mjs PATH_OF_VATRA. Prints 'N passed, N failed'.
import { rmSync } from "node:fs";
import { Person, Server, browser, check, summary, watch } from "./harness.mjs";
import { hostile } from "./hostile.mjs";
import { long } from "./long.mjs";
import { secret } from "./secret.mjs";
import { restart, together } from "./together.mjs";

const server = new Server(process.argv[2]);
await server.start();
const ana = new Person(server, "ana");
const bogdan = new Person(server, "bogdan");
watch(ana, bogdan);
let code = 1;
try {
    const room = await together(server, ana, bogdan);
    await secret(server, ana, bogdan);
    await restart(server, ana, bogdan, room);
    await hostile(server, ana);
    await long(server, ana, 10_000);
    await check("nobody's page had an error, or met its policy", async () => {
        await ana.close();
        await bogdan.close();
    });
    code = summary();
} finally {
    await browser.close();
    await server.stop();
    rmSync(server.folder, { recursive: true, force: true });
}
process.exit(code);
