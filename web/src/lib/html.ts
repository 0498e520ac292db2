// HTML that came in messages, and Markdown that goes out: both pass the same list of what is allowed.
import DOMPurify from "dompurify";
import { marked } from "marked";
import { matrixLink } from "./links";

// https://spec.matrix.org/v1.19/client-server-api/#mroommessage-msgtypes, without pictures: those would be fetched without being asked for.
const TAGS =
    "del h1 h2 h3 h4 h5 h6 blockquote p a ul ol sup sub li b i u strong em s code hr br div table thead tbody tr th td caption pre span details summary".split(" ");

const purify = DOMPurify(window);

purify.addHook("afterSanitizeAttributes", (node) => {
    if (node.tagName === "A") {
        const href = node.getAttribute("href") ?? "";
        const inside = matrixLink(href);
        if (inside) {
            node.setAttribute("href", inside);
        } else if (/^(https?|mailto):/i.test(href)) {
            node.setAttribute("target", "_blank");
            node.setAttribute("rel", "noreferrer noopener");
            // Where it really leads, whatever its text says.
            node.setAttribute("title", href.slice(0, 300));
        } else {
            node.removeAttribute("href");
        }
    }
    if (node.hasAttribute("data-mx-spoiler")) node.setAttribute("tabindex", "0");
    const language = node.getAttribute("class");
    if (language && !(node.tagName === "CODE" && /^language-[\w+-]{1,30}$/.test(language))) node.removeAttribute("class");
});

export function sanitise(html: string): string {
    return purify.sanitize(html, {
        ALLOWED_TAGS: TAGS,
        ALLOWED_ATTR: ["href", "start", "class", "data-mx-spoiler"],
        ALLOW_DATA_ATTR: false,
        ALLOW_ARIA_ATTR: false,
        FORBID_CONTENTS: ["mx-reply", "style", "script", "title", "template", "svg", "math"],
    });
}

// A content is shown many times, and never changes.
const shown = new WeakMap<object, string>();

/** The safe HTML of a message's content, if it has any. */
export function messageHtml(content: Record<string, unknown>): string | undefined {
    if (content.format !== "org.matrix.custom.html" || typeof content.formatted_body !== "string") return undefined;
    let html = shown.get(content);
    if (html === undefined) {
        html = sanitise(content.formatted_body);
        shown.set(content, html);
    }
    return html;
}

/** What goes into a message: the text, and HTML if the Markdown says more than the text does. */
export function messageBody(text: string): { body: string; format?: string; formatted_body?: string } {
    const html = sanitise(marked.parse(text, { async: false, gfm: true, breaks: true })).trim();
    const plain = document.createElement("div");
    plain.textContent = text.trim();
    const same = html === `<p>${plain.innerHTML.replace(/\n/g, "<br>")}</p>`;
    if (same || !/<(?!\/?p>|br>)/.test(html)) return { body: text };
    const single = /^<p>((?:(?!<p>).)*)<\/p>$/s.exec(html);
    return { body: text, format: "org.matrix.custom.html", formatted_body: (single?.[1] ?? html).replace(/ (target|rel|title)="[^"]*"/g, "") };
}
