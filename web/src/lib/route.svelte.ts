// Where one is, in the address after the #, so that the server serves one page and the browser's back button works.

export interface Route {
    /** "", "login", "room", "settings" ... */
    view: string;
    /** What follows, decoded: a room, then an event or a panel. */
    args: string[];
}

function parse(hash: string): Route {
    const [view = "", ...args] = hash.replace(/^#\/?/, "").split("/");
    try {
        return { view, args: args.map(decodeURIComponent) };
    } catch {
        return { view: "", args: [] };
    }
}

class Router {
    current = $state.raw<Route>(parse(location.hash));

    constructor() {
        addEventListener("hashchange", () => (this.current = parse(location.hash)));
    }

    go(view: string, ...args: string[]) {
        location.hash = link(view, ...args);
    }

    /** As `go`, but the page left is not in the history. */
    replace(view: string, ...args: string[]) {
        history.replaceState(null, "", link(view, ...args));
        this.current = parse(location.hash);
    }
}

export function link(view: string, ...args: string[]): string {
    return ["#", view, ...args.map(encodeURIComponent)].join("/");
}

export const router = new Router();
