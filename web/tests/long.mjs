// A room of 10,000 events: it opens at its end, scrolls back to its beginning, and holds few rows and little memory.
import assert from "node:assert/strict";
import { check } from "./harness.mjs";

export async function long(server, ana, events) {
    const writer = await server.guest("writer");
    const { room_id: room } = await writer.api("POST", "/createRoom", { preset: "public_chat", name: "Chronicle" });
    const lanes = Array.from({ length: 20 }, (_, lane) => lane);
    await Promise.all(
        lanes.map(async (lane) => {
            for (let i = lane; i < events - 1; i += lanes.length) await writer.send(room, { msgtype: "m.text", body: `line ${i} ${"word ".repeat(i % 30)}` });
        }),
    );
    await writer.send(room, { msgtype: "m.text", body: "the end" });

    await check(`a room of ${events} events scrolls to its beginning and back, with few rows and no long stop`, async () => {
        await ana.go(`#/room/${encodeURIComponent(room)}`);
        await ana.button("Join", { exact: true }).click();
        await ana.hears("the end");
        await ana.page.evaluate(() => {
            window.stops = [];
            new PerformanceObserver((list) => window.stops.push(...list.getEntries().map((entry) => entry.duration))).observe({ type: "longtask" });
        });
        const scroller = ana.page.getByRole("log");
        const begins = scroller.getByText("This is where the room begins.");
        let rows = 0;
        const until = Date.now() + 120_000;
        while ((await begins.count()) === 0) {
            assert.ok(Date.now() < until, "the beginning was not reached");
            await scroller.evaluate((node) => node.scrollBy(0, -4000));
            await ana.page.waitForTimeout(15);
            rows = Math.max(rows, await ana.page.getByRole("article").count());
        }
        assert.ok(rows < 120, `${rows} rows at once`);
        const stops = (await ana.page.evaluate(() => window.stops)).sort((a, b) => b - a);
        assert.ok((stops[0] ?? 0) < 1500, `a stop of ${stops[0]} ms`);
        await ana.button("To the newest message").click();
        await ana.hears("the end");
        const heap = await ana.page.evaluate(() => performance.memory?.usedJSHeapSize ?? 0);
        assert.ok(heap < 300_000_000, `${heap} bytes`);
        console.log(`      ${rows} rows at most, longest stop ${Math.round(stops[0] ?? 0)} ms, ${Math.round(heap / 1e6)} MB`);
    });
}
