// Who is signed in here. Several tabs share it.
import { read, write } from "./local";

export interface Session {
    userId: string;
    accessToken: string;
    deviceId: string;
}

class SessionStore {
    current = $state.raw<Session | undefined>(read<Session>("session"));
    /** The password with which one has just signed in or registered, for the one thing that is done with it then: signing one's keys. */
    password: string | undefined;

    constructor() {
        addEventListener("storage", (event) => {
            if (event.key === "vatra.session" && event.newValue !== event.oldValue) location.reload();
        });
    }

    set(session: Session | undefined, password?: string) {
        this.password = password;
        write("session", session);
        this.current = session;
    }
}

export const session = new SessionStore();
