import { link } from "./route.svelte";

/** A link to a person, room or message becomes a place in this client. */
export function matrixLink(href: string): string | undefined {
    const found = /^https:\/\/matrix\.to\/#\/([^/?]+)(?:\/([^?]+))?/.exec(href);
    if (!found) return undefined;
    try {
        const target = decodeURIComponent(found[1] ?? "");
        const event = found[2] ? decodeURIComponent(found[2]) : undefined;
        if (/^[!#]/.test(target)) return event?.startsWith("$") ? link("room", target, event) : link("room", target);
        if (target.startsWith("@")) return link("person", target);
    } catch {
        // Not a link that we can read: it goes to matrix.to itself.
    }
    return undefined;
}
