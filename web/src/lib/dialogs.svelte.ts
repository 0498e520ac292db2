// Questions to a person, asked from anywhere; `ui/Dialogs.svelte` shows them.
import { MatrixError } from "matrix-js-sdk";
import { client } from "./account.svelte";
import { explain } from "./api";
import { t } from "./i18n.svelte";
import { session } from "./session.svelte";

export interface Question {
    title: string;
    text?: string;
    /** Asks for words as well. */
    input?: { label: string; type?: "text" | "password"; value?: string; optional?: boolean };
    yes: string;
    danger?: boolean;
    done(answer: string | undefined): void;
}

export interface Note {
    id: number;
    text: string;
    error: boolean;
}

class Dialogs {
    question = $state.raw<Question | undefined>();
    notes = $state.raw<Note[]>([]);
    private next = 0;

    /** The words, or an empty text if none were asked for; undefined if the person thought better of it. */
    ask(question: Omit<Question, "done">): Promise<string | undefined> {
        this.question?.done(undefined);
        return new Promise((resolve) => {
            this.question = {
                ...question,
                done: (answer) => {
                    this.question = undefined;
                    resolve(answer);
                },
            };
        });
    }

    note(text: string, error = false) {
        const id = this.next++;
        this.notes = [...this.notes.slice(-2), { id, text, error }];
        setTimeout(() => (this.notes = this.notes.filter((note) => note.id !== id)), error ? 8000 : 4000);
    }

    /** Does it, and says so if it fails. */
    async attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
        try {
            return await work();
        } catch (error) {
            console.warn(error);
            this.note(explain(error), true);
            return undefined;
        }
    }
}

export const dialogs = new Dialogs();

/** The person thought better of confirming. */
export class Cancelled extends Error {
    constructor() {
        super(t("cancelled"));
    }
}

/** Makes a request that wants one's password again. */
export async function confirmed<T>(request: (auth: Record<string, unknown> | null) => Promise<T>): Promise<T> {
    let wrong = false;
    let known = session.password;
    let auth: Record<string, unknown> | null = null;
    for (;;) {
        try {
            return await request(auth);
        } catch (error) {
            if (!(error instanceof MatrixError) || error.httpStatus !== 401 || !error.data.flows) throw error;
            const { session: stage, flows } = error.data as { session?: string; flows: { stages: string[] }[] };
            if (!flows.some(({ stages }) => stages.length === 1 && stages[0] === "m.login.password")) throw new Error(t("confirmElsewhere"));
            wrong = auth !== null;
            const text: string = wrong ? t("passwordWrong") : t("confirmText");
            const typed: string | undefined = !wrong && known ? known : await dialogs.ask({ title: t("confirmTitle"), text, input: { label: t("password"), type: "password" }, yes: t("confirm") });
            known = undefined;
            if (typed === undefined) throw new Cancelled();
            auth = { type: "m.login.password", identifier: { type: "m.id.user", user: client.getUserId() }, password: typed, session: stage };
        }
    }
}
