// The browser's own notifications, for what the account's rules say is worth one.
import { type MatrixEvent, MatrixEventEvent, type Room, RoomEvent, ClientEvent } from "matrix-js-sdk";
import { account, client } from "./account.svelte";
import { messageLine, nameIn } from "./describe";
import { router } from "./route.svelte";
import { roomName, rooms } from "./rooms.svelte";
import { settings } from "./settings.svelte";

export const canNotify = () => "Notification" in window;

export async function turnOn(on: boolean): Promise<boolean> {
    if (on && Notification.permission !== "granted" && (await Notification.requestPermission()) !== "granted") return false;
    settings.setNotify(on);
    return true;
}

const told = new Set<string>();

function consider(event: MatrixEvent, room: Room | null) {
    const id = event.getId() ?? "";
    if (!room || told.has(id) || event.getSender() === client.getUserId() || Date.now() - event.getTs() > 120_000) return;
    if (event.isBeingDecrypted() || event.shouldAttemptDecryption()) return;
    const looking = document.hasFocus() && router.current.args[0] === room.roomId;
    if (looking || !client.getPushActionsForEvent(event)?.notify) return;
    if (!settings.notify || !canNotify() || Notification.permission !== "granted") return;
    told.add(id);
    const sender = nameIn(room, event.getSender() ?? "");
    const shown = new Notification(roomName(room), { body: `${sender}: ${messageLine(event)}`, tag: room.roomId, icon: "icon.svg" });
    shown.onclick = () => {
        window.focus();
        router.go("room", room.roomId);
        shown.close();
    };
}

export function startNotifications() {
    client.on(RoomEvent.Timeline, (event, room, old, _removed, data) => {
        if (!old && data?.liveEvent && account.phase === "ready") consider(event, room ?? null);
    });
    client.on(MatrixEventEvent.Decrypted, (event) => consider(event, client.getRoom(event.getRoomId())));
    client.on(ClientEvent.Sync, () => {
        document.title = rooms.unread > 0 ? `(${rooms.unread}) vatra` : "vatra";
    });
}
