// What one does with rooms and people, from several places.
import { EventType, KnownMembership, Preset, Visibility } from "matrix-js-sdk";
import { client } from "./account.svelte";
import { dialogs } from "./dialogs.svelte";
import { t } from "./i18n.svelte";
import { directRooms, markDirect } from "./rooms.svelte";
import { router } from "./route.svelte";
import { uploadAvatar } from "./media";

/** Goes into a room, by id or alias, and shows it. */
export async function enterRoom(target: string): Promise<void> {
    await dialogs.attempt(async () => {
        const invite = client.getRoom(target)?.getMember(client.getSafeUserId())?.events.member;
        const room = await client.joinRoom(target);
        if (invite?.getContent().is_direct) await markDirect(room.roomId, invite.getSender() ?? "");
        router.go("room", room.roomId);
    });
}

export async function leaveRoom(room: string): Promise<void> {
    await dialogs.attempt(async () => {
        await client.leave(room);
        router.go("");
    });
}

const ENCRYPTION = { type: EventType.RoomEncryption, state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };

export interface Wanted {
    name: string;
    topic: string;
    picture?: File;
    open: boolean;
    encrypted: boolean;
    invite: string[];
}

export async function createRoom(wanted: Wanted): Promise<void> {
    const initial_state: { type: string; state_key: string; content: object }[] = [];
    if (wanted.encrypted) initial_state.push(ENCRYPTION);
    if (wanted.picture) initial_state.push({ type: EventType.RoomAvatar, state_key: "", content: { url: await uploadAvatar(wanted.picture) } });
    const { room_id } = await client.createRoom({
        name: wanted.name,
        topic: wanted.topic || undefined,
        preset: wanted.open ? Preset.PublicChat : Preset.PrivateChat,
        visibility: wanted.open ? Visibility.Public : Visibility.Private,
        invite: wanted.invite,
        initial_state,
    });
    router.go("room", room_id);
}

/** The conversation with someone: the one that there is, or a new one, which is encrypted. */
export async function talkTo(user: string): Promise<void> {
    const here: string[] = [KnownMembership.Join, KnownMembership.Invite];
    for (const [room, other] of directRooms()) {
        const found = client.getRoom(room);
        if (other !== user || found?.getMyMembership() !== KnownMembership.Join) continue;
        if (here.includes(found.getMember(user)?.membership ?? "")) return router.go("room", room);
    }
    const { room_id } = await client.createRoom({ preset: Preset.TrustedPrivateChat, is_direct: true, invite: [user], initial_state: [ENCRYPTION] });
    await markDirect(room_id, user);
    router.go("room", room_id);
}

/** Asks first. */
export async function sure(title: string, text: string, yes: string): Promise<boolean> {
    return (await dialogs.ask({ title, text, yes, danger: true })) !== undefined;
}

/** The full id of whom someone has typed: "ana" is of this server. */
export function userId(typed: string): string {
    const name = typed.trim();
    if (/^@[^:]+:.+/.test(name)) return name;
    return `@${name.replace(/^@/, "")}:${client.getDomain()}`;
}

export const copy = (text: string) =>
    dialogs.attempt(async () => {
        await navigator.clipboard.writeText(text);
        dialogs.note(t("copied"));
    });
