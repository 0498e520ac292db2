// What belongs to this browser, not to the account: language, light or dark, whether to notify.
import { read, write } from "./local";

export type Theme = "system" | "light" | "dark";
export type Language = "en" | "ro";

class Settings {
    theme = $state<Theme>(read<Theme>("theme") ?? "system");
    language = $state<Language>(read<Language>("language") ?? (navigator.language.startsWith("ro") ? "ro" : "en"));
    notify = $state<boolean>(read<boolean>("notify") ?? false);

    setTheme(theme: Theme) {
        this.theme = theme;
        write("theme", theme);
        this.apply();
    }

    setLanguage(language: Language) {
        this.language = language;
        write("language", language);
        this.apply();
    }

    setNotify(on: boolean) {
        this.notify = on;
        write("notify", on);
    }

    apply() {
        const root = document.documentElement;
        root.lang = this.language;
        if (this.theme === "system") delete root.dataset.theme;
        else root.dataset.theme = this.theme;
    }
}

export const settings = new Settings();
