// Words in the language that the person reads.
import { en } from "./en";
import { ro } from "./ro";
import { settings } from "./settings.svelte";

export type Key = keyof typeof en;

const words: Record<string, Record<Key, string>> = { en, ro };

/**
 * The words of a key, with `{name}` filled in. Words that differ by number have their forms between bars, in the order of
 * the language's plural rules: "{n} person | {n} people".
 */
export function t(key: Key, values: Record<string, string | number> = {}): string {
    const language = settings.language;
    let text = words[language]?.[key] ?? en[key];
    if (typeof values.n === "number" && text.includes(" | ")) {
        const forms = text.split(" | ");
        const kind = new Intl.PluralRules(language).select(values.n);
        const order = language === "ro" ? ["one", "few", "other"] : ["one", "other"];
        text = forms[order.indexOf(kind)] ?? forms[forms.length - 1] ?? text;
    }
    return text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ""));
}

/** The language as it is written where the person lives: of it follow the forms of times and days. */
function locale(): string {
    return navigator.languages.find((tag) => tag.startsWith(settings.language)) ?? settings.language;
}

export function timeOf(at: number): string {
    return new Intl.DateTimeFormat(locale(), { hour: "2-digit", minute: "2-digit" }).format(at);
}

export function fullTime(at: number): string {
    return new Intl.DateTimeFormat(locale(), { dateStyle: "full", timeStyle: "short" }).format(at);
}

export function dayOf(at: number): string {
    const day = new Date(at).toDateString();
    const today = new Date();
    const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
    if (day === today.toDateString()) return t("today");
    if (day === yesterday.toDateString()) return t("yesterday");
    const year = new Date(at).getFullYear() === today.getFullYear() ? undefined : "numeric";
    return new Intl.DateTimeFormat(locale(), { weekday: "long", day: "numeric", month: "long", year }).format(at);
}

/** For lists: the time of today's, the day of others. */
export function shortTime(at: number): string {
    if (!at) return "";
    if (new Date(at).toDateString() === new Date().toDateString()) return timeOf(at);
    return new Intl.DateTimeFormat(locale(), { day: "numeric", month: "short" }).format(at);
}

export function listOf(names: string[]): string {
    return new Intl.ListFormat(settings.language).format(names);
}
