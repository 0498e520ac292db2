import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
    // Wherever it is put.
    base: "./",
    plugins: [svelte()],
    // Its wasm file lies beside it, where the optimiser would not look.
    optimizeDeps: { exclude: ["@matrix-org/matrix-sdk-crypto-wasm"] },
    build: {
        target: "es2022",
        // What is inlined as data: URLs, the policy would refuse.
        assetsInlineLimit: 0,
        // Old browsers' stand-in is an inline script, which the policy refuses too.
        modulePreload: { polyfill: false },
        chunkSizeWarningLimit: 2000,
        license: { fileName: "licenses.md" },
    },
    // For working on the client: `npm run dev` beside a server.
    server: { proxy: { "/_matrix": process.env.VATRA_URL ?? "http://127.0.0.1:8008" } },
});
