// The few endpoints that one needs without an account, and what their errors mean. Everything else is the SDK's, which is loaded after signing in.
import { unique } from "./local";
import type { Session } from "./session.svelte";
import { t } from "./i18n.svelte";

const configured = document.querySelector<HTMLMetaElement>('meta[name="homeserver"]')?.content;
export const homeserver = (configured || location.origin).replace(/\/$/, "");

export class ApiError extends Error {
    constructor(
        readonly status: number,
        readonly code: string,
        message: string,
        readonly body: Record<string, unknown> = {},
    ) {
        super(message);
    }
}

export async function api<T>(method: string, path: string, body?: unknown, token?: string): Promise<T> {
    const headers: Record<string, string> = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (token) headers.authorization = `Bearer ${token}`;
    let answer: Response;
    try {
        answer = await fetch(`${homeserver}/_matrix/client/v3${path}`, {
            method,
            headers,
            body: body === undefined ? undefined : JSON.stringify(body),
        });
    } catch {
        throw new ApiError(0, "offline", t("errorOffline"));
    }
    const json = (await answer.json().catch(() => ({}))) as Record<string, unknown>;
    if (!answer.ok) throw new ApiError(answer.status, String(json.errcode ?? ""), String(json.error ?? ""), json);
    return json as T;
}

const CODES: Record<string, Parameters<typeof t>[0]> = {
    M_FORBIDDEN: "errorForbidden",
    M_USER_IN_USE: "errorUserInUse",
    M_INVALID_USERNAME: "errorInvalidUsername",
    M_EXCLUSIVE: "errorUserInUse",
    M_WEAK_PASSWORD: "errorWeakPassword",
    M_LIMIT_EXCEEDED: "errorLimit",
    M_TOO_LARGE: "errorTooLarge",
    M_NOT_FOUND: "errorNotFound",
    M_THREEPID_NOT_FOUND: "errorAddressUnknown",
    M_THREEPID_IN_USE: "errorAddressInUse",
    M_USER_DEACTIVATED: "errorDeactivated",
    M_USER_LOCKED: "errorLocked",
    M_USER_SUSPENDED: "errorSuspended",
};

/** What to tell a person of an error: of our own words where we have some, for a server's are in English. */
export function explain(error: unknown): string {
    const e = error as { code?: string; errcode?: string; message?: string; name?: string; data?: { error?: string } };
    if (e?.name === "ConnectionError" || e?.code === "offline") return t("errorOffline");
    const known = CODES[e?.errcode ?? e?.code ?? ""];
    if (known) return t(known);
    return e?.data?.error || e?.message || t("errorUnknown");
}

interface Stage {
    session?: string;
    completed?: string[];
    flows?: { stages: string[] }[];
    params?: Record<string, unknown>;
}

interface SignedIn {
    user_id: string;
    access_token: string;
    device_id: string;
}

const session = (answer: SignedIn): Session => ({
    userId: answer.user_id,
    accessToken: answer.access_token,
    deviceId: answer.device_id,
});

const deviceName = () => `vatra (${/Firefox|Edg|Chrome|Safari/.exec(navigator.userAgent)?.[0] ?? "web"})`;

export async function login(user: string, password: string): Promise<Session> {
    const identifier = user.includes("@") && !user.startsWith("@")
        ? { type: "m.id.thirdparty", medium: "email", address: user }
        : { type: "m.id.user", user };
    const body = { type: "m.login.password", identifier, password, initial_device_display_name: deviceName() };
    return session(await api<SignedIn>("POST", "/login", body));
}

export async function loginWithToken(token: string): Promise<Session> {
    const body = { type: "m.login.token", token, initial_device_display_name: deviceName() };
    return session(await api<SignedIn>("POST", "/login", body));
}

export interface LoginFlow {
    type: string;
    identity_providers?: { id: string; name: string }[];
}

export async function loginFlows(): Promise<LoginFlow[]> {
    return (await api<{ flows: LoginFlow[] }>("GET", "/login")).flows;
}

export function ssoUrl(provider?: string): string {
    const back = encodeURIComponent(location.origin + location.pathname);
    const path = provider ? `/${encodeURIComponent(provider)}` : "";
    return `${homeserver}/_matrix/client/v3/login/sso/redirect${path}?redirectUrl=${back}`;
}

/** A letter that was asked for, and the secret that goes with it. */
export interface Letter {
    sid: string;
    client_secret: string;
}

let attempt = 0;

/** Asks the server to send a letter with a link: to register, or to set a new password. */
export async function askForLetter(what: "register" | "account/password", email: string): Promise<Letter> {
    const client_secret = unique();
    const body = { client_secret, email, send_attempt: ++attempt };
    const { sid } = await api<{ sid: string }>("POST", `/${what}/email/requestToken`, body);
    return { sid, client_secret };
}

/** Answers of a person to what the server asks of who registers. */
export interface Answers {
    token?: string;
    letter?: Letter;
    acceptTerms?: boolean;
}

/** What is still missing, by the stage's name. */
export class Missing extends Error {
    constructor(
        readonly stage: string,
        readonly params: Record<string, unknown>,
        readonly wrong: boolean,
    ) {
        super(stage);
    }
}

function answerTo(stage: string, answers: Answers): Record<string, unknown> | undefined {
    if (stage === "m.login.dummy") return { type: stage };
    if (stage === "m.login.registration_token" && answers.token) return { type: stage, token: answers.token };
    if (stage === "m.login.terms" && answers.acceptTerms) return { type: stage };
    if (stage === "m.login.email.identity" && answers.letter) return { type: stage, threepid_creds: answers.letter };
    return undefined;
}

/** Of several ways the shortest that one can go here: which stages a page cannot do is in `KNOWN`. */
const KNOWN = ["m.login.dummy", "m.login.registration_token", "m.login.terms", "m.login.email.identity"];

/**
 * Registers, stage by stage. Throws `Missing` when a person must answer something first; call it again with the answer and the same
 * `begun`, which keeps what was reached.
 */
export async function register(user: string, password: string, answers: Answers, begun: { session?: string }): Promise<Session> {
    const body = { username: user.toLowerCase(), password, initial_device_display_name: deviceName() };
    let auth: Record<string, unknown> | undefined = begun.session ? { session: begun.session } : undefined;
    let tried = "";
    for (;;) {
        try {
            const answer = await api<SignedIn>("POST", "/register", auth ? { ...body, auth } : body);
            // Others see a name rather than an address; it can be changed later.
            const profile = `/profile/${encodeURIComponent(answer.user_id)}/displayname`;
            await api("PUT", profile, { displayname: user }, answer.access_token).catch(() => {});
            return session(answer);
        } catch (error) {
            if (!(error instanceof ApiError) || error.status !== 401 || !error.body.flows) throw error;
            const stage = error.body as Stage;
            begun.session = stage.session;
            const completed = stage.completed ?? [];
            const ways = (stage.flows ?? []).filter((flow) => flow.stages.every((name) => KNOWN.includes(name)));
            const cost = (stages: string[]) => stages.length + (stages.includes("m.login.email.identity") && !answers.letter ? 10 : 0);
            ways.sort((a, b) => cost(a.stages) - cost(b.stages));
            const next = ways[0]?.stages.find((name) => !completed.includes(name));
            if (!next) throw new ApiError(401, "", t("registerElsewhere"));
            const answered = answerTo(next, answers);
            if (!answered || tried === next) throw new Missing(next, (stage.params?.[next] ?? {}) as Record<string, unknown>, tried === next);
            tried = next;
            auth = { ...answered, session: stage.session };
        }
    }
}

/** Sets a new password with a letter whose link was followed. */
export async function resetPassword(letter: Letter, password: string): Promise<void> {
    const auth = { type: "m.login.email.identity", threepid_creds: letter };
    await api("POST", "/account/password", { new_password: password, logout_devices: true, auth });
}

export interface PublicRoom {
    room_id: string;
    name?: string;
    topic?: string;
    canonical_alias?: string;
    num_joined_members: number;
    avatar_url?: string;
    world_readable: boolean;
    join_rule?: string;
}

export async function publicRooms(filter: string, since: string | undefined, token?: string): Promise<{ chunk: PublicRoom[]; next_batch?: string }> {
    if (!token) return await api("GET", `/publicRooms?limit=50${since ? `&since=${encodeURIComponent(since)}` : ""}`);
    const body = { limit: 50, ...(since ? { since } : {}), ...(filter ? { filter: { generic_search_term: filter } } : {}) };
    return await api("POST", "/publicRooms", body, token);
}
