// How loud a room is: kept in the account's push rules, so that the server, phones and letters go by it too.
import { ConditionKind, PushRuleActionName, PushRuleKind, type IPushRule } from "matrix-js-sdk";
import { client } from "./account.svelte";

export type Level = "default" | "all" | "mentions" | "mute";

const rule = (kind: PushRuleKind.Override | PushRuleKind.RoomSpecific, room: string): IPushRule | undefined =>
    client.pushRules?.global[kind]?.find((rule) => rule.rule_id === room);

export function levelOf(room: string): Level {
    if (rule(PushRuleKind.Override, room)?.enabled) return "mute";
    const own = rule(PushRuleKind.RoomSpecific, room);
    if (!own?.enabled) return "default";
    return own.actions.includes(PushRuleActionName.Notify) ? "all" : "mentions";
}

export async function setLevel(room: string, level: Level): Promise<void> {
    for (const kind of [PushRuleKind.Override, PushRuleKind.RoomSpecific] as const) {
        if (rule(kind, room)) await client.deletePushRule("global", kind, room);
    }
    if (level === "mute") {
        const conditions = [{ kind: ConditionKind.EventMatch as const, key: "room_id", pattern: room }];
        await client.addPushRule("global", PushRuleKind.Override, room, { conditions, actions: [] });
    } else if (level !== "default") {
        const actions = level === "all" ? [PushRuleActionName.Notify] : [];
        await client.addPushRule("global", PushRuleKind.RoomSpecific, room, { actions });
    }
    client.setPushRules(await client.getPushRules());
}

/** When letters come to an address. "off" is no pusher at all. */
export type Mode = "off" | "instant" | "hourly" | "daily" | "mentions";

export interface Letters {
    address: string;
    mode: Mode;
    from: string;
    to: string;
    quiet: boolean;
}

interface PusherData {
    "org.vatra.mode"?: Mode;
    "org.vatra.quiet_hours"?: { from: string; to: string; time_zone: string };
}

/** The account's addresses, and how letters come to each. */
export async function letters(): Promise<Letters[]> {
    const [{ threepids }, { pushers }] = await Promise.all([client.getThreePids(), client.getPushers()]);
    return threepids
        .filter((it) => it.medium === "email")
        .map(({ address }) => {
            const pusher = pushers.find((it) => it.kind === "email" && it.pushkey === address);
            const data = (pusher?.data ?? {}) as PusherData;
            const hours = data["org.vatra.quiet_hours"];
            return { address, mode: pusher ? (data["org.vatra.mode"] ?? "instant") : "off", quiet: hours !== undefined, from: hours?.from ?? "22:00", to: hours?.to ?? "07:00" };
        });
}

export async function setLetters(it: Letters, lang: string): Promise<void> {
    const time_zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const data: PusherData & { brand: string } = { brand: "vatra" };
    if (it.mode !== "off") data["org.vatra.mode"] = it.mode;
    if (it.quiet) data["org.vatra.quiet_hours"] = { from: it.from, to: it.to, time_zone };
    const about = { app_id: "m.email", pushkey: it.address, app_display_name: "vatra", device_display_name: it.address, lang };
    await client.setPusher({ ...about, kind: it.mode === "off" ? null : "email", data: it.mode === "off" ? {} : data, append: false } as never);
}
