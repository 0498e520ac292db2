// What was written and not yet taken by the server. Texts are kept in the browser until then, over a reload and a time without a network;
// their transaction ids stay the same, so that nothing is said twice.
import { ClientEvent, ConnectionError, EventStatus, type MatrixError, SyncState } from "matrix-js-sdk";
import { client } from "./account.svelte";
import { read, unique, write } from "./local";
import { session } from "./session.svelte";

export interface Outgoing {
    txn: string;
    room: string;
    type: string;
    content: Record<string, unknown>;
    at: number;
    /** Known once the server has taken it: it is shown from here until it comes by sync. */
    event?: string;
    /** The server does not want it. */
    refused?: string;
}

const key = () => `outbox.${session.current?.userId}`;

class Outbox {
    items = $state.raw<Outgoing[]>([]);
    private sending = new Set<string>();
    private timer: ReturnType<typeof setTimeout> | undefined;
    private wait = 2000;

    start() {
        this.items = read<Outgoing[]>(key()) ?? [];
        client.on(ClientEvent.Sync, (state) => {
            if (state === SyncState.Syncing) this.pump();
        });
        addEventListener("online", () => this.pump());
        this.pump();
    }

    add(room: string, type: string, content: Record<string, unknown>) {
        const item = { txn: `v${unique()}`, room, type, content, at: Date.now() };
        this.change([...this.items, item]);
        this.pump();
    }

    remove(txn: string) {
        const item = this.items.find((item) => item.txn === txn);
        const tried = item && client.getRoom(item.room)?.getEventForTxnId(txn);
        if (tried?.status === EventStatus.NOT_SENT) client.cancelPendingEvent(tried);
        this.change(this.items.filter((item) => item.txn !== txn));
    }

    again(txn: string) {
        this.change(this.items.map((item) => (item.txn === txn ? { ...item, refused: undefined } : item)));
        this.pump();
    }

    /** Forgets what has come back by sync. */
    arrived(events: { has(id: string): boolean }) {
        if (this.items.some((item) => item.event && events.has(item.event))) this.change(this.items.filter((item) => !item.event || !events.has(item.event)));
    }

    private change(items: Outgoing[]) {
        this.items = items;
        write(key(), items.some((item) => !item.event) ? items.filter((item) => !item.event) : undefined);
    }

    /** In each room one after the other, so that they arrive in the order in which they were said. */
    private pump() {
        clearTimeout(this.timer);
        for (const room of new Set(this.items.map((item) => item.room))) void this.drain(room);
    }

    private async drain(room: string) {
        if (this.sending.has(room)) return;
        this.sending.add(room);
        try {
            for (;;) {
                const next = this.items.find((item) => item.room === room && !item.event && !item.refused);
                const place = client.getRoom(room);
                if (!next || !place) return;
                const tried = place.getEventForTxnId(next.txn);
                const sent =
                    tried?.status === EventStatus.NOT_SENT
                        ? await client.resendEvent(tried, place)
                        : await client.sendEvent(room, null, next.type as never, next.content as never, next.txn);
                this.wait = 2000;
                this.change(this.items.map((item) => (item.txn === next.txn ? { ...item, event: sent.event_id } : item)));
            }
        } catch (error) {
            this.failed(room, error);
        } finally {
            this.sending.delete(room);
        }
    }

    private failed(room: string, error: unknown) {
        const e = error as MatrixError;
        const passing = error instanceof ConnectionError || !e.httpStatus || e.httpStatus >= 500 || e.httpStatus === 429 || e.httpStatus === 401;
        if (!passing) {
            const next = this.items.find((item) => item.room === room && !item.event && !item.refused);
            this.change(this.items.map((item) => (item === next ? { ...item, refused: e.data?.error ?? e.message } : item)));
        }
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.pump(), passing ? this.wait : 0);
        this.wait = Math.min(this.wait * 2, 60_000);
    }
}

export const outbox = new Outbox();

// What is written and not sent yet, by room.
const draftKey = () => `drafts.${session.current?.userId}`;

export const draft = (room: string): string => read<Record<string, string>>(draftKey())?.[room] ?? "";

export function keepDraft(room: string, text: string) {
    const drafts = read<Record<string, string>>(draftKey()) ?? {};
    if (text) drafts[room] = text;
    else delete drafts[room];
    write(draftKey(), drafts);
}
