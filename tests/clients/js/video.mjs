// A browser plays a video from vatra: video.mjs URL_OF_THE_FILE SECONDS. Prints what it did as JSON; ends with code 3 where there is no chromium.
import { accessSync, constants } from "node:fs";
import { chromium } from "playwright-core";

const [url, seconds] = [process.argv[2], Number(process.argv[3])];

function browserPath() {
    for (const place of [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]) {
        if (!place) continue;
        try {
            accessSync(place, constants.X_OK);
            return place;
        } catch {
            // The next one.
        }
    }
    process.exit(3);
}

const browser = await chromium.launch({
    executablePath: browserPath(),
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--autoplay-policy=no-user-gesture-required"],
});
const page = await browser.newPage();
const answers = [];
page.on("response", async (response) => {
    const asked = await response.request().allHeaders();
    answers.push({ status: response.status(), asked: asked.range ?? "", range: (await response.allHeaders())["content-range"] ?? "" });
});
await page.setContent("<video muted></video>");
const played = await page.evaluate(
    async ({ url, seconds }) => {
        const video = document.querySelector("video");
        const happens = (name) =>
            new Promise((done, fail) => {
                video.addEventListener(name, done, { once: true });
                video.addEventListener("error", () => fail(new Error(`${name}: ${video.error?.message}`)), { once: true });
                setTimeout(() => fail(new Error(`no ${name}`)), 30_000);
            });
        const ready = happens("canplay");
        video.src = url;
        await ready;
        await video.play();
        while (video.currentTime < 0.5) await new Promise((done) => setTimeout(done, 50));
        const began = video.currentTime;
        const sought = happens("seeked");
        video.currentTime = seconds - 1;
        await sought;
        await video.play();
        await happens("ended");
        return { began, ended: video.currentTime, length: video.duration, width: video.videoWidth, height: video.videoHeight };
    },
    { url, seconds },
);
console.log(JSON.stringify({ ...played, answers }));
await browser.close();
