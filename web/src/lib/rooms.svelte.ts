// The rooms of who is signed in, as the list shows them.
import { ClientEvent, Direction, EventType, KnownMembership, MatrixEventEvent, NotificationCountType, type Room, RoomEvent, RoomMemberEvent, RoomStateEvent } from "matrix-js-sdk";
import { client } from "./account.svelte";
import { preview } from "./describe";
import { oneLine } from "./text";

export interface RoomEntry {
    id: string;
    name: string;
    avatar?: string;
    membership: string;
    /** Who invited one. */
    inviter?: string;
    unread: number;
    highlight: boolean;
    last: string;
    at: number;
    direct: boolean;
    encrypted: boolean;
}

/** The other person's id, by room, of conversations of two. */
export function directRooms(): Map<string, string> {
    const content = (client.getAccountData(EventType.Direct)?.getContent() ?? {}) as Record<string, unknown>;
    const found = new Map<string, string>();
    for (const [user, rooms] of Object.entries(content)) {
        if (Array.isArray(rooms)) for (const room of rooms) if (typeof room === "string") found.set(room, user);
    }
    return found;
}

export async function markDirect(room: string, user: string): Promise<void> {
    const content = { ...(client.getAccountData(EventType.Direct)?.getContent() as Record<string, string[]> | undefined) };
    content[user] = [...new Set([...(content[user] ?? []), room])];
    await client.setAccountData(EventType.Direct, content as never);
}

export function roomName(room: Room): string {
    return oneLine(room.name, 100) || room.roomId;
}

export function roomAvatar(room: Room, direct?: string): string | undefined {
    const own = room.getMxcAvatarUrl();
    if (own) return own;
    return direct ? (room.getMember(direct)?.getMxcAvatarUrl() ?? undefined) : undefined;
}

function entry(room: Room, direct: string | undefined): RoomEntry {
    const membership = room.getMyMembership();
    const me = room.getMember(client.getSafeUserId());
    const events = room.getLiveTimeline().getEvents();
    let last = "";
    let at = 0;
    for (let i = events.length - 1; i >= 0 && i > events.length - 30; i--) {
        const event = events[i];
        if (!event) continue;
        at ||= event.getTs();
        const line = preview(event, room);
        if (line) {
            last = line;
            at = event.getTs();
            break;
        }
    }
    const invited = membership === KnownMembership.Invite;
    const invite = invited ? me?.events.member : undefined;
    return {
        id: room.roomId,
        name: roomName(room),
        avatar: roomAvatar(room, direct),
        membership,
        inviter: invite?.getSender(),
        unread: invited ? 1 : room.getUnreadNotificationCount(NotificationCountType.Total),
        highlight: invited || room.getUnreadNotificationCount(NotificationCountType.Highlight) > 0,
        last,
        at: at || invite?.getTs() || 0,
        direct: direct !== undefined || invite?.getContent().is_direct === true,
        encrypted: room.hasEncryptionStateEvent(),
    };
}

class Rooms {
    list = $state.raw<RoomEntry[]>([]);
    /** Grows with every change of anything in a room's state; who reads it is told. */
    version = $state(0);
    unread = $derived(this.list.reduce((sum, room) => sum + (room.unread > 0 ? 1 : 0), 0));
    private timer: ReturnType<typeof setTimeout> | undefined;

    start() {
        const soon = () => (this.timer ??= setTimeout(() => this.refresh(), 60));
        client.on(ClientEvent.Room, soon);
        client.on(ClientEvent.DeleteRoom, soon);
        client.on(ClientEvent.AccountData, soon);
        client.on(ClientEvent.Sync, soon);
        client.on(RoomEvent.Timeline, soon);
        client.on(RoomEvent.Name, soon);
        client.on(RoomEvent.MyMembership, soon);
        client.on(RoomEvent.Receipt, soon);
        client.on(RoomEvent.Redaction, soon);
        client.on(RoomStateEvent.Events, soon);
        client.on(RoomMemberEvent.Membership, soon);
        client.on(MatrixEventEvent.Decrypted, soon);
        this.refresh();
    }

    refresh() {
        this.timer = undefined;
        const direct = directRooms();
        const shown: string[] = [KnownMembership.Join, KnownMembership.Invite];
        const list = client
            .getVisibleRooms()
            .filter((room) => shown.includes(room.getMyMembership()) && !room.isSpaceRoom())
            .map((room) => entry(room, direct.get(room.roomId)));
        const rank = (room: RoomEntry) => (room.membership === KnownMembership.Invite ? 1 : 0);
        list.sort((a, b) => rank(b) - rank(a) || b.at - a.at);
        this.list = list;
        this.version++;
    }
}

export const rooms = new Rooms();

/** What one may do in a room, by its power levels. */
export function may(room: Room, what: "invite" | "kick" | "ban" | "redact" | { state: string }): boolean {
    const me = client.getSafeUserId();
    const state = room.getLiveTimeline().getState(Direction.Forward);
    if (!state || room.getMyMembership() !== KnownMembership.Join) return false;
    if (typeof what === "object") return state.maySendStateEvent(what.state, me);
    if (what === "redact") return state.maySendRedactionForEvent({ getSender: () => "" } as never, me);
    return what === "invite" ? room.canInvite(me) : state.hasSufficientPowerLevelFor(what, room.getMember(me)?.powerLevel ?? 0);
}
