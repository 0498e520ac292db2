// Words of strangers, made fit to be shown beside our own.

// Marks that turn the direction of what follows, and those that cannot be seen: with them "annexe.txt" is "exe.txt" backwards.
const TRICKS = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/** On one line, without marks that deceive, and no longer than `most`. */
export function oneLine(text: unknown, most = 120): string {
    if (typeof text !== "string") return "";
    const plain = text.replace(/[\t\n\r]+/g, " ").replace(TRICKS, "").trim();
    // Letters are piled up with marks above and below: at most four each.
    const flat = plain.replace(/(\p{M}{4})\p{M}+/gu, "$1");
    const letters = [...flat];
    return letters.length > most ? `${letters.slice(0, most).join("")}…` : flat;
}

/** What a person is called: of nothing that can be seen the user id remains. */
export function personName(name: unknown, userId: string): string {
    return oneLine(name, 80) || oneLine(userId, 80);
}

/** A name to save a file under. */
export function fileName(name: unknown): string {
    const plain = oneLine(name, 100).replace(/[/\\:*?"<>|]/g, "_").replace(/^\.+/, "");
    return plain || "file";
}

export interface Piece {
    text: string;
    href?: string;
}

const LINK = /https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g;

/** Plain text in pieces, of which some are links. */
export function linked(text: string): Piece[] {
    const pieces: Piece[] = [];
    let end = 0;
    for (const match of text.matchAll(LINK)) {
        if (match.index > end) pieces.push({ text: text.slice(end, match.index) });
        pieces.push({ text: match[0], href: match[0] });
        end = match.index + match[0].length;
    }
    if (end < text.length) pieces.push({ text: text.slice(end) });
    return pieces;
}

export function bytes(size: unknown, language: string): string {
    let amount = typeof size === "number" && size > 0 ? size : 0;
    const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
    let unit = 0;
    while (amount >= 1000 && unit < units.length - 1) {
        amount /= 1000;
        unit++;
    }
    const digits = unit > 0 && amount < 10 ? 1 : 0;
    return new Intl.NumberFormat(language, { style: "unit", unit: units[unit], maximumFractionDigits: digits }).format(amount);
}
