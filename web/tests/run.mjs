// The web client in a real browser against the real server: node run.mjs PATH_OF_VATRA. Prints 'N passed, N failed'.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Person, Server, browser, check, summary } from "./harness.mjs";
import { hostile } from "./hostile.mjs";
import { byMail } from "./letters.mjs";
import { long } from "./long.mjs";
import { looks } from "./looks.mjs";
import { secret } from "./secret.mjs";
import { restart, together } from "./together.mjs";

const server = new Server(process.argv[2]);
await server.start();
const ana = new Person(server, "ana");
const bogdan = new Person(server, "bogdan");
let code = 1;
try {
    await check("what the client is made of may be shipped, and is named by nothing but its hash", async () => {
        const { packages } = JSON.parse(readFileSync(new URL("../package-lock.json", import.meta.url)));
        // What is only built or tested with may be under the Mozilla licence, which concerns its own files.
        const shipped = /^\(?(MIT|ISC|0BSD|BSD-[23]-Clause|Apache-2\.0|MPL-2\.0 OR Apache-2\.0)\)?$/;
        for (const [name, it] of Object.entries(packages)) {
            assert.ok(shipped.test(it.license) || (it.dev && it.license === "MPL-2.0"), `${name}: ${it.license}`);
            assert.ok(name === "" || (it.integrity && !it.resolved), name);
        }
    });
    const room = await together(server, ana, bogdan);
    await secret(server, ana, bogdan);
    await restart(server, ana, bogdan, room);
    await hostile(server, ana);
    await looks(server);
    await byMail(process.argv[2]);
    await long(server, ana, 10_000);
    await check("nobody's page had an error, or met its policy", async () => {
        await ana.close();
        await bogdan.close();
    });
    code = summary();
} finally {
    await browser.close();
    await server.stop();
    server.remove();
}
process.exit(code);
