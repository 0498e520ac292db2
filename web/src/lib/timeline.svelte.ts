// A window on a room's timeline, and the rows that are shown of it. It grows towards both ends as one scrolls, and forgets what is far away.
import {
    Direction,
    EventStatus,
    EventType,
    type MatrixEvent,
    MatrixEventEvent,
    type Room,
    RoomEvent,
    RoomMemberEvent,
    RoomStateEvent,
    TimelineWindow,
} from "matrix-js-sdk";
import { account, client } from "./account.svelte";
import { messageLine, nameIn, stateLine } from "./describe";
import { dayOf } from "./i18n.svelte";
import { type Outgoing, outbox } from "./outbox.svelte";

const PAGE = 80;
const MOST = 500;

export interface Reaction {
    key: string;
    who: string[];
    /** The id of one's own. */
    mine?: string;
}

export interface Message {
    kind: "message";
    key: string;
    id: string;
    event: MatrixEvent;
    content: Record<string, unknown>;
    sender: string;
    name: string;
    avatar?: string;
    at: number;
    own: boolean;
    /** Not of the same person just before. */
    first: boolean;
    edited: boolean;
    redacted: boolean;
    undecrypted: boolean;
    reactions: Reaction[];
    reply?: { id: string; name: string; line: string };
    seenBy: { id: string; name: string; avatar?: string }[];
}

export type Row =
    | Message
    | { kind: "day"; key: string; text: string }
    | { kind: "unread"; key: string }
    | { kind: "state"; key: string; text: string; at: number }
    | { kind: "outgoing"; key: string; item: Outgoing }
    | { kind: "begin"; key: string };

export class Timeline {
    rows = $state.raw<Row[]>([]);
    loading = $state(true);
    error = $state<unknown>();
    /** The window ends where the room does. */
    live = $state(true);
    loadingOlder = $state(false);
    /** Rows are put before the others: the list keeps its place counted from the end. */
    shift = $state(false);
    typing = $state.raw<string[]>([]);
    private window: TimelineWindow;
    private unreadAfter: string | undefined;
    private timer: ReturnType<typeof setTimeout> | undefined;
    private busy = false;
    private closed = false;
    private off: (() => void)[] = [];
    private missing = new Map<string, MatrixEvent | null>();

    constructor(
        readonly room: Room,
        private focus?: string,
    ) {
        this.window = this.newWindow();
        // Where one had read to when the room was opened: it stays there while it is open.
        this.unreadAfter = room.getEventReadUpTo(client.getSafeUserId()) ?? undefined;
        this.listen();
        void this.load();
    }

    private newWindow() {
        return new TimelineWindow(client, this.room.getUnfilteredTimelineSet(), { windowLimit: 100_000 });
    }

    private async load() {
        this.loading = true;
        this.error = undefined;
        try {
            await this.window.load(this.focus, PAGE);
            if (!this.focus) await this.fill();
        } catch (error) {
            this.error = error;
        }
        this.loading = false;
        this.rebuild();
        // What comes while one looks is no news of before.
        if (!this.rows.some((row) => row.kind === "unread")) this.unreadAfter = undefined;
    }

    /** A screen full of rows at least. */
    private async fill() {
        for (let i = 0; i < 4 && this.visible() < 25 && this.window.canPaginate(Direction.Backward); i++) {
            if (!(await this.window.paginate(Direction.Backward, PAGE))) break;
        }
    }

    private visible = () => this.window.getEvents().filter((event) => isMessage(event)).length;

    retry() {
        void this.load();
    }

    /** Back to the newest. */
    async toEnd() {
        this.focus = undefined;
        this.window = this.newWindow();
        await this.load();
    }

    private listen() {
        const mine = (room: Room | undefined) => {
            if (!room || room.roomId === this.room.roomId) this.soon();
        };
        const on = (event: string, handler: (...args: never[]) => void) => {
            client.on(event as never, handler as never);
            this.off.push(() => client.off(event as never, handler as never));
        };
        on(RoomEvent.Timeline, (_: MatrixEvent, room: Room | undefined) => mine(room));
        on(RoomEvent.TimelineReset, (room: Room | undefined) => {
            if (room?.roomId !== this.room.roomId || this.focus) return;
            void this.toEnd();
        });
        on(RoomEvent.Redaction, (_: MatrixEvent, room: Room) => mine(room));
        on(RoomEvent.LocalEchoUpdated, (_: MatrixEvent, room: Room) => mine(room));
        on(RoomEvent.Receipt, (_: MatrixEvent, room: Room) => mine(room));
        on(MatrixEventEvent.Decrypted, () => this.soon());
        on(MatrixEventEvent.Replaced, () => this.soon());
        on(RoomStateEvent.Members, (event: MatrixEvent) => event.getRoomId() === this.room.roomId && this.soon());
        on(RoomMemberEvent.Typing, (_: MatrixEvent, member: { roomId: string }) => {
            if (member.roomId !== this.room.roomId) return;
            const me = client.getUserId();
            const typing = this.room.getMembers().filter((other) => other.typing && other.userId !== me);
            this.typing = typing.map((other) => nameIn(this.room, other.userId));
        });
    }

    /** Many events come together. */
    soon() {
        this.timer ??= setTimeout(() => {
            this.timer = undefined;
            if (!this.busy && !this.loading && !this.closed) this.rebuild();
        }, 30);
    }

    async older() {
        if (this.busy || this.loading || !this.window.canPaginate(Direction.Backward)) return;
        this.busy = this.loadingOlder = true;
        try {
            await this.window.paginate(Direction.Backward, PAGE);
        } catch (error) {
            if (account.online) this.error = error;
        } finally {
            this.busy = this.loadingOlder = false;
        }
        this.rebuild(true);
        this.forget(false);
    }

    async newer() {
        if (this.busy || this.loading || this.live) return;
        this.busy = true;
        try {
            await this.window.paginate(Direction.Forward, PAGE);
        } catch (error) {
            if (account.online) this.error = error;
        } finally {
            this.busy = false;
        }
        this.rebuild();
        this.forget(true);
    }

    /** What is far from where one looks. In a step of its own, for the list keeps its place from one end at a time. */
    private forget(oldest: boolean) {
        setTimeout(() => {
            const extra = this.window.getEvents().length - MOST;
            if (this.busy || this.closed || extra < PAGE) return;
            this.window.unpaginate(extra, oldest);
            if (!oldest) this.live = false;
            this.rebuild(oldest);
        }, 60);
    }

    private rebuild(shift = false) {
        // What has come in while the window is at the end belongs to it.
        if (this.live && this.window.getTimelineIndex(Direction.Forward)) this.window.extend(Direction.Forward, 1000);
        const end = this.window.getTimelineIndex(Direction.Forward);
        this.live = !!end && end.timeline === this.room.getLiveTimeline() && end.index >= end.maxIndex();
        const events = this.window.getEvents();
        outbox.arrived(new Set(events.filter((event) => !isPending(event)).map((event) => event.getId() ?? "")));
        this.shift = shift;
        this.rows = this.build(events);
    }

    private build(events: MatrixEvent[]): Row[] {
        const rows: Row[] = [];
        if (!this.window.canPaginate(Direction.Backward) && !this.error) rows.push({ kind: "begin", key: "begin" });
        const seen = this.receipts(events);
        const me = client.getSafeUserId();
        let day = "";
        let before: MatrixEvent | undefined;
        let unread = false;
        let passed = false;
        for (const event of events) {
            const id = event.getId() ?? "";
            const shown = !isPending(event) && (isMessage(event) || event.isState());
            const line = shown && event.isState() ? stateLine(event, this.room) : "";
            if (shown && (line || !event.isState())) {
                const today = dayOf(event.getTs());
                if (today !== day) {
                    day = today;
                    before = undefined;
                    rows.push({ kind: "day", key: `day ${new Date(event.getTs()).toDateString()}`, text: today });
                }
                if (passed && !unread && event.getSender() !== me && isMessage(event)) {
                    unread = true;
                    before = undefined;
                    rows.push({ kind: "unread", key: "unread" });
                }
                if (line) rows.push({ kind: "state", key: id, text: line, at: event.getTs() });
                else rows.push(this.message(event, before, seen.get(id) ?? []));
                before = line ? undefined : event;
            }
            if (id === this.unreadAfter) passed = true;
        }
        if (this.live) {
            const here = new Set(events.filter((event) => !isPending(event)).map((event) => event.getId()));
            for (const item of outbox.items) {
                const edit = (item.content["m.relates_to"] as { rel_type?: string } | undefined)?.rel_type === "m.replace";
                if (item.room === this.room.roomId && !edit && !here.has(item.event)) rows.push({ kind: "outgoing", key: item.txn, item });
            }
        }
        return rows;
    }

    private message(event: MatrixEvent, before: MatrixEvent | undefined, seenBy: string[]): Message {
        const id = event.getId() ?? "";
        const sender = event.getSender() ?? "";
        const first = !before || before.getSender() !== sender || event.getTs() - before.getTs() > 5 * 60_000;
        const unsigned = event.getUnsigned().transaction_id;
        return {
            kind: "message",
            // The row of what one has just sent stays the same row.
            key: unsigned ?? event.getTxnId() ?? id,
            id,
            event,
            content: event.getContent(),
            sender,
            name: nameIn(this.room, sender),
            avatar: this.room.getMember(sender)?.getMxcAvatarUrl() ?? undefined,
            at: event.getTs(),
            own: sender === client.getUserId(),
            first,
            edited: event.replacingEvent() !== null && event.replacingEvent() !== undefined,
            redacted: event.isRedacted(),
            undecrypted: event.isDecryptionFailure(),
            reactions: this.reactions(id),
            reply: this.reply(event),
            seenBy: seenBy.map((user) => ({ id: user, name: nameIn(this.room, user), avatar: this.room.getMember(user)?.getMxcAvatarUrl() ?? undefined })),
        };
    }

    private reactions(id: string): Reaction[] {
        const related = this.room.getUnfilteredTimelineSet().relations.getChildEventsForEvent(id, "m.annotation", EventType.Reaction);
        const found: Reaction[] = [];
        for (const [key, events] of related?.getSortedAnnotationsByKey() ?? []) {
            const valid = [...events].filter((event) => !event.isRedacted());
            if (valid.length === 0) continue;
            const mine = valid.find((event) => event.getSender() === client.getUserId());
            const who = [...new Set(valid.map((event) => nameIn(this.room, event.getSender() ?? "")))];
            found.push({ key, who, mine: mine?.getId() });
        }
        return found;
    }

    private reply(event: MatrixEvent): Message["reply"] {
        const id = event.replyEventId;
        if (!id || event.isRedacted()) return undefined;
        const found = this.room.findEventById(id) ?? this.missing.get(id);
        if (found) return { id, name: nameIn(this.room, found.getSender() ?? ""), line: messageLine(found) };
        if (found === undefined) {
            this.missing.set(id, null);
            void this.fetch(id);
        }
        return { id, name: "", line: "…" };
    }

    private async fetch(id: string) {
        try {
            const event = client.getEventMapper()(await client.fetchRoomEvent(this.room.roomId, id));
            await client.decryptEventIfNeeded(event);
            this.missing.set(id, event);
            this.soon();
        } catch {
            // Gone, or not for us to see: the row stays without it.
        }
    }

    /** Who has read up to where: each at the last row that they saw. */
    private receipts(events: MatrixEvent[]): Map<string, string[]> {
        const found = new Map<string, string[]>();
        const places = new Map<string, string>();
        let row: string | undefined;
        for (const event of events) {
            const id = event.getId() ?? "";
            if (!isPending(event) && isMessage(event)) row = id;
            if (row) for (const user of this.room.getUsersReadUpTo(event)) places.set(user, row);
        }
        const senders = new Map<string, string>();
        for (const event of events) if (isMessage(event)) senders.set(event.getId() ?? "", event.getSender() ?? "");
        for (const [user, id] of places) {
            if (user === client.getUserId() || senders.get(id) === user) continue;
            found.set(id, [...(found.get(id) ?? []), user]);
        }
        return found;
    }

    /** The newest message of one's own that can be edited. */
    lastOwn(): Message | undefined {
        const editable = (row: Row): row is Message => row.kind === "message" && row.own && !row.redacted && row.content.msgtype === "m.text";
        return this.rows.findLast(editable);
    }

    async markRead() {
        const newest = this.window.getEvents().findLast((event) => !isPending(event) && event.getId()?.startsWith("$"));
        if (!newest || this.room.getEventReadUpTo(client.getSafeUserId()) === newest.getId()) return;
        const live = this.room.getLiveTimeline().getEvents().findLast((event) => !isPending(event));
        if (live?.getId() !== newest.getId()) return;
        await client.setRoomReadMarkers(this.room.roomId, newest.getId() ?? "", newest).catch(() => {});
    }

    close() {
        this.closed = true;
        clearTimeout(this.timer);
        for (const off of this.off) off();
        // The SDK keeps whatever was looked at; a long walk through the past is not worth its memory.
        const kept = this.room.getLiveTimeline().getEvents().length;
        if (kept > 1500 && account.online) void this.room.refreshLiveTimeline().catch(() => {});
    }
}

function isPending(event: MatrixEvent): boolean {
    return event.status !== null && event.status !== EventStatus.SENT;
}

function isMessage(event: MatrixEvent): boolean {
    const type = event.getType();
    if (event.getRelation()?.rel_type === "m.replace") return false;
    // For programs: it opens a dialog.
    if (event.getContent().msgtype === "m.key.verification.request") return false;
    return type === EventType.RoomMessage || type === EventType.Sticker || type === EventType.RoomMessageEncrypted;
}
