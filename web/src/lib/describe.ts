// Events in words: for the list of rooms, notifications, and the lines between messages.
import { EventType, KnownMembership, type MatrixEvent, type Room } from "matrix-js-sdk";
import { t } from "./i18n.svelte";
import { oneLine, personName } from "./text";

export function nameIn(room: Room | null | undefined, user: string): string {
    return personName(room?.getMember(user)?.name, user);
}

/** A message in one line; empty of what is no message. */
export function messageLine(event: MatrixEvent): string {
    if (event.isRedacted()) return t("redacted");
    if (event.isDecryptionFailure()) return t("cannotDecrypt");
    const content = event.getContent();
    if (event.getType() === EventType.Sticker) return t("picture");
    if (event.getType() !== EventType.RoomMessage) return "";
    switch (content.msgtype) {
        case "m.key.verification.request":
            return "";
        case "m.image":
            return t("picture");
        case "m.video":
            return t("video");
        case "m.audio":
            return t("sound");
        case "m.file":
            return t("fileNamed", { name: oneLine(content.filename ?? content.body, 60) });
        default:
            return oneLine(withoutQuote(content.body), 140);
    }
}

/** Old clients repeat what they reply to. */
export function withoutQuote(body: unknown): string {
    const text = typeof body === "string" ? body : "";
    return text.replace(/^(?:> .*\n)+\n/, "");
}

export function preview(event: MatrixEvent, room: Room): string {
    const relation = event.getRelation()?.rel_type;
    if (relation === "m.replace" || event.status === "not_sent") return "";
    const line = messageLine(event);
    if (!line) return "";
    const sender = event.getSender() ?? "";
    return sender === room.client.getUserId() ? t("youSaid", { line }) : `${nameIn(room, sender)}: ${line}`;
}

/** What a change of the room's state means; empty of what nobody needs to be told. */
export function stateLine(event: MatrixEvent, room: Room): string {
    const content = event.getContent();
    const before = event.getPrevContent();
    const by = event.getSender() ?? "";
    const who = nameIn(room, by);
    switch (event.getType()) {
        case EventType.RoomCreate:
            return t("stateCreated", { who });
        case EventType.RoomName:
            return t("stateName", { who, name: oneLine(content.name) });
        case EventType.RoomTopic:
            return t("stateTopic", { who, topic: oneLine(content.topic) });
        case EventType.RoomAvatar:
            return t("stateAvatar", { who });
        case EventType.RoomEncryption:
            return t("stateEncrypted", { who });
        case EventType.RoomTombstone:
            return t("stateTombstone");
        case EventType.RoomMember:
            break;
        default:
            return "";
    }
    const user = event.getStateKey() ?? "";
    const whom = personName(content.displayname ?? before.displayname, user);
    const was = before.membership;
    switch (content.membership) {
        case KnownMembership.Invite:
            return t("stateInvited", { who, whom });
        case KnownMembership.Ban:
            return t("stateBanned", { who, whom });
        case KnownMembership.Knock:
            return t("stateKnocked", { whom });
        case KnownMembership.Join:
            if (was !== KnownMembership.Join) return t("stateJoined", { whom });
            if (before.displayname !== content.displayname) return t("stateRenamed", { before: personName(before.displayname, user), whom });
            return before.avatar_url !== content.avatar_url ? t("statePicture", { whom }) : "";
        case KnownMembership.Leave:
            if (was === KnownMembership.Ban) return t("stateUnbanned", { who, whom });
            if (was === KnownMembership.Invite && user === by) return t("stateRejected", { whom });
            if (user === by) return t("stateLeft", { whom });
            return was === KnownMembership.Invite ? t("stateWithdrawn", { who, whom }) : t("stateKicked", { who, whom });
        default:
            return "";
    }
}
