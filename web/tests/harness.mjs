// What the tests stand on: a server of their own, a browser, people with a browser each, and a count at the end.
import { spawn } from "node:child_process";
import { accessSync, constants, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

export { sleep };

const FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split(" ");

/** Debian's chromium, or what CHROMIUM names. */
function browserPath() {
    const places = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    for (const place of places) {
        if (!place) continue;
        try {
            accessSync(place, constants.X_OK);
            return place;
        } catch {
            // The next one.
        }
    }
    throw new Error("no chromium: name one in CHROMIUM");
}

export const browser = await chromium.launch({ executablePath: browserPath(), args: FLAGS });

const freePort = () =>
    new Promise((done) => {
        const probe = createServer().listen(0, "127.0.0.1", () => {
            const { port } = probe.address();
            probe.close(() => done(port));
        });
    });

/** The real binary, with a folder of its own. */
export class Server {
    /** `client` and `more` are settings beside the usual: keys of [client], and whole sections. */
    constructor(vatra, { client = "", more = "[registration]\nopen = true" } = {}) {
        this.vatra = vatra;
        this.client = client;
        this.more = more;
        this.folder = mkdtempSync(join(tmpdir(), "vatra-web-"));
    }

    async prepare() {
        this.port ??= await freePort();
        // A name that is not an address: browsers treat localhost as safe, which workers and keys need.
        this.url = `http://localhost:${this.port}`;
        const log = join(this.folder, "log");
        mkdirSync(log, { recursive: true });
        this.config = join(this.folder, "vatra.toml");
        const text = `server_name = "localhost"\ndata_dir = "${this.folder}/data"\nmedia_dir = "${this.folder}/media"\n[client]\nlisten = "127.0.0.1:${this.port}"\n${this.client.replace("PORT", this.port)}\n[rate_limits]\nenabled = false\n${this.more}\n`;
        writeFileSync(this.config, text);
        this.log = openSync(join(log, "vatra.log"), "a");
    }

    async start() {
        await this.prepare();
        this.process = spawn(this.vatra, ["--config", this.config], { stdio: ["ignore", this.log, this.log] });
        for (let i = 0; i < 600; i++) {
            if (this.process.exitCode !== null) throw new Error("vatra ended at start");
            const answer = await fetch(`http://127.0.0.1:${this.port}/_matrix/client/versions`).catch(() => undefined);
            if (answer?.ok) return;
            await sleep(50);
        }
        throw new Error("vatra does not answer");
    }

    async stop() {
        if (!this.process || this.process.exitCode !== null) return;
        const ended = new Promise((done) => this.process.once("exit", done));
        this.process.kill("SIGTERM");
        const timer = setTimeout(() => this.process.kill("SIGKILL"), 20_000);
        await ended;
        clearTimeout(timer);
    }

    remove() {
        rmSync(this.folder, { recursive: true, force: true });
    }

    /** The API itself, for what only another client would do. */
    async api(method, path, body, token) {
        const answer = await fetch(`http://127.0.0.1:${this.port}/_matrix/client/v3${path}`, {
            method,
            headers: { "content-type": "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}) },
            body: body === undefined ? undefined : JSON.stringify(body),
        });
        const json = await answer.json();
        if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(json)}`);
        return json;
    }

    /** Someone who is there without a browser. */
    async guest(username) {
        const body = { username, password: `${username} has a password`, auth: { type: "m.login.dummy" } };
        const { access_token: token, user_id: id } = await this.api("POST", "/register", body);
        let txn = 0;
        return {
            id,
            token,
            api: (method, path, json) => this.api(method, path, json, token),
            send: (room, content) => this.api("PUT", `/rooms/${encodeURIComponent(room)}/send/m.room.message/${Date.now()}.${txn++}`, content, token),
        };
    }
}

export const password = (name) => `${name} has a password`;

/** All who are there: when a step fails, VATRA_WEB_PICTURES may name a folder for pictures of what they see. */
const people = [];

/** Someone in a browser of their own: a fresh profile, every request remembered, every error counted. */
export class Person {
    constructor(server, name) {
        this.server = server;
        this.name = name;
        this.sent = [];
        this.faults = [];
        people.push(this);
    }

    async open(options = {}) {
        this.context = await browser.newContext({ locale: "en-GB", viewport: { width: 1180, height: 760 }, colorScheme: "light", permissions: ["clipboard-read", "clipboard-write"], ...options });
        this.page = await this.context.newPage();
        this.page.setDefaultTimeout(45_000);
        this.page.on("request", (request) => this.sent.push(`${request.url()} ${request.postDataBuffer()?.toString("latin1") ?? ""}`));
        this.page.on("pageerror", (error) => this.faults.push(String(error)));
        this.page.on("console", (message) => {
            if (/Content.Security.Policy/i.test(message.text())) this.faults.push(message.text());
        });
        await this.page.goto(`${this.server.url}/`);
        return this;
    }

    button = (name, options) => this.page.getByRole("button", { name, ...options });
    link = (name, options) => this.page.getByRole("link", { name, ...options });
    label = (name, options) => this.page.getByLabel(name, options);
    text = (text, options) => this.page.getByText(text, options);

    async register() {
        await this.page.goto(`${this.server.url}/#/register`);
        await this.label("User name").fill(this.name);
        await this.label("Password").fill(password(this.name));
        await this.button("Make an account").click();
        await this.inside();
    }

    async signIn() {
        await this.page.goto(`${this.server.url}/#/login`);
        await this.label("User name or e-mail address").fill(this.name);
        await this.label("Password").fill(password(this.name));
        await this.button("Sign in", { exact: true }).click();
        await this.inside();
    }

    inside = () => this.link(/^Settings of/).waitFor({ timeout: 90_000 });

    async enter(room) {
        await this.page.getByRole("navigation", { name: "Rooms" }).getByRole("link", { name: room }).click();
        await this.composer().waitFor();
    }

    composer = () => this.page.getByRole("textbox", { name: /^Write an? / });

    async say(text) {
        await this.composer().fill(text);
        await this.composer().press("Enter");
    }

    messages = () => this.page.getByRole("log");
    message = (text) => this.page.getByRole("article").filter({ hasText: text });

    async hears(text, options = {}) {
        await this.messages().getByText(text, { exact: true }).first().waitFor(options);
    }

    /** What one does with a message, behind its button. */
    async act(text, action) {
        const message = this.message(text).last();
        await message.hover();
        await message.getByRole("button", { name: "What to do with the message" }).click();
        await message.getByRole("button", { name: action, exact: true }).click();
    }

    go = (hash) => this.page.goto(`${this.server.url}/${hash}`);

    async close() {
        await this.context.close();
        if (this.faults.length > 0) throw new Error(`${this.name}: ${this.faults.join("\n")}`);
    }
}

const outcomes = [];

export async function check(name, work) {
    const begin = Date.now();
    const seconds = () => ((Date.now() - begin) / 1000).toFixed(1).padStart(5);
    try {
        await work();
        outcomes.push(true);
        console.log(`ok ${seconds()} s  ${name}`);
    } catch (error) {
        outcomes.push(false);
        console.log(`FAILED ${seconds()} s  ${name}\n${error.stack ?? error}`);
        if (process.env.VATRA_WEB_PICTURES) {
            for (const [number, person] of people.entries()) {
                const path = `${process.env.VATRA_WEB_PICTURES}/${outcomes.length}-${person.name}${number}.png`;
                await person.page?.screenshot({ path }).catch(() => {});
            }
        }
    }
}

export function summary() {
    const failed = outcomes.filter((good) => !good).length;
    console.log(`${outcomes.length - failed} passed, ${failed} failed`);
    return failed > 0 || outcomes.length === 0 ? 1 : 0;
}

/** A red picture with a lighter edge, drawn by the browser itself. */
export async function picture(width, height, text = "") {
    const page = await browser.newPage();
    const base64 = await page.evaluate(
        ([width, height, text]) => {
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [width, height];
            const paint = canvas.getContext("2d");
            const sky = paint.createLinearGradient(0, 0, 0, height);
            sky.addColorStop(0, "#2d1b3d");
            sky.addColorStop(0.6, "#d9480f");
            sky.addColorStop(1, "#ffd8a8");
            paint.fillStyle = sky;
            paint.fillRect(0, 0, width, height);
            paint.fillStyle = "#1a120b";
            for (let x = 0; x < width; x += width / 12) paint.fillRect(x, height * (0.75 - 0.12 * Math.sin(x / 70)), width / 14, height);
            paint.fillStyle = "#fff";
            paint.font = `${height / 12}px sans-serif`;
            paint.fillText(text, width / 20, height / 8);
            return canvas.toDataURL("image/png").split(",")[1];
        },
        [width, height, text],
    );
    await page.close();
    return Buffer.from(base64, "base64");
}
