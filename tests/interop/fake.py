"""A server that has rooms and says what a test wants: just enough of federation for others to join and to ask what they miss."""

import json
import ssl
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

import requests
from canonicaljson import encode_canonical_json
from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json

from events import Event, now
from servers import ADDRESS, Authority, free_ports

DAY_MS = 86_400_000


class Room:
    """A room that is made here: its events, and the state before each as its maker believes it to be."""

    def __init__(self, server: "FakeServer", version: int):
        self.server, self.version = server, version
        self.events: dict[str, Event] = {}
        self.views: dict[str, dict] = {}
        self.id = f"!{uuid.uuid4().hex[:12]}:{server.name}"

    def make(self, sender: str, kind: str, content: dict, prev: list[Event], view: dict, state_key: str | None = None, auth=None) -> Event:
        """A new event after `prev`, with `view` as the state before it."""
        body = {
            "type": kind,
            "sender": sender,
            "content": content,
            "depth": 1 + max((event.depth for event in prev), default=0),
            "origin_server_ts": now(),
            "prev_events": [event.reference() for event in prev],
        }
        if state_key is not None:
            body["state_key"] = state_key
        if not (kind == "m.room.create" and self.version >= 12):
            body["room_id"] = self.id
        if self.version < 3:
            body["event_id"] = f"${uuid.uuid4().hex}:{self.server.name}"
            body["origin"] = self.server.name
        chosen = self.auth_of(body, view) if auth is None else auth
        body["auth_events"] = [event.reference() for event in chosen]
        event = Event(body, self.version, self.server.name, self.server.key)
        if kind == "m.room.create" and self.version >= 12:
            self.id = "!" + event.id[1:]
        self.add(event, view)
        return event

    def add(self, event: Event, view: dict):
        self.events[event.id] = event
        self.views[event.id] = dict(view)

    def after(self, event: Event) -> dict:
        """The state after an event."""
        view = dict(self.views[event.id])
        if event.key:
            view[event.key] = event
        return view

    def auth_of(self, body: dict, view: dict) -> list[Event]:
        if body["type"] == "m.room.create":
            return []
        wanted = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", body["sender"])]
        if self.version >= 12:
            wanted.remove(("m.room.create", ""))
        if body["type"] == "m.room.member":
            wanted.append(("m.room.member", body["state_key"]))
            if body["content"].get("membership") in ("join", "invite", "knock"):
                wanted.append(("m.room.join_rules", ""))
        found = [view[key] for key in dict.fromkeys(wanted) if key in view]
        return list({event.id: event for event in found}.values())

    def ids(self, references: list) -> list[str]:
        return [reference[0] if isinstance(reference, list) else reference for reference in references]

    def auth_chain(self, events) -> list[Event]:
        chain, left = {}, [event_id for event in events for event_id in self.ids(event.auth_events)]
        if self.version >= 12:
            left += [event.id for event in self.events.values() if event.type == "m.room.create"]
        while left:
            event = self.events.get(left.pop())
            if event and event.id not in chain:
                chain[event.id] = event
                left += self.ids(event.auth_events)
        return list(chain.values())

    def newest(self) -> Event:
        return list(self.events.values())[-1]


class FakeServer:
    """Listens with TLS; `rooms` is what it has. Whoever joins does so after the newest event."""

    def __init__(self, authority: Authority, name: str = "fake", address: str = ADDRESS):
        self.port = free_ports(1)[0]
        self.name = f"{address}:{self.port}"
        self.key = generate_signing_key("fake")
        self.rooms: dict[str, Room] = {}
        self.session = requests.Session()
        # Whatever the environment says of authorities and proxies.
        self.session.trust_env = False
        self.session.verify = str(authority.file)
        cert, key = authority.certificate(name, address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        handler = type("Handler", (Handler,), {"fake": self})
        self.http = ThreadingHTTPServer((address, self.port), handler)
        self.http.daemon_threads = True
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self):
        self.http.shutdown()

    def keys(self) -> dict:
        verify = encode_verify_key_base64(get_verify_key(self.key))
        document = {
            "server_name": self.name,
            "valid_until_ts": now() + DAY_MS,
            "verify_keys": {f"{self.key.alg}:{self.key.version}": {"key": verify}},
            "old_verify_keys": {},
        }
        return sign_json(document, self.name, self.key)

    def request(self, server: str, method: str, path: str, body=None):
        """A signed request to another server."""
        what = {"method": method, "uri": path, "origin": self.name, "destination": server}
        if body is not None:
            what["content"] = body
        signed = sign_json(what, self.name, self.key)["signatures"][self.name]
        proofs = [
            f'X-Matrix origin="{self.name}",destination="{server}",key="{key}",sig="{signature}"' for key, signature in signed.items()
        ]
        headers = {"Authorization": proofs[0], "Content-Type": "application/json"}
        data = encode_canonical_json(body) if body is not None else None
        answer = self.session.request(method, f"https://{server}{path}", data=data, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def tell(self, server: str, events: list[Event]):
        """Events in one transaction, in this order."""
        body = {"origin": self.name, "origin_server_ts": now(), "pdus": [event.json for event in events]}
        return self.request(server, "PUT", f"/_matrix/federation/v1/send/{uuid.uuid4().hex}", body)["pdus"]

    def join(self, server: str, room: str, user: str):
        """A user of this server joins a room that is elsewhere."""
        versions = "&".join(f"ver={version}" for version in range(1, 13))
        path = f"/_matrix/federation/v1/make_join/{quote(room, safe='')}/{quote(user, safe='')}?{versions}"
        template = self.request(server, "GET", path)
        event = Event(template["event"] | {"origin_server_ts": now()}, int(template["room_version"]), self.name, self.key)
        path = f"/_matrix/federation/v2/send_join/{quote(room, safe='')}/{quote(event.id, safe='')}"
        self.request(server, "PUT", path, event.json)

    # What others ask

    def answer(self, method: str, path: str, query: dict, body):
        parts = [unquote(part) for part in path.split("/")[1:]]
        match parts:
            case ["_matrix", "key", "v2", "server", *_]:
                return self.keys()
            case ["_matrix", "federation", "v1", "version"]:
                return {"server": {"name": "fake", "version": "1"}}
            case ["_matrix", "federation", "v1", "send", _]:
                return {"pdus": {}}
            case ["_matrix", "federation", "v1", "make_join", room, user]:
                return self.make_join(self.rooms[room], user)
            case ["_matrix", "federation", "v2", "send_join", room, _]:
                return self.send_join(self.rooms[room], body)
            case ["_matrix", "federation", "v1", "event", event]:
                found = next(room.events[event] for room in self.rooms.values() if event in room.events)
                return {"origin": self.name, "origin_server_ts": now(), "pdus": [found.json]}
            case ["_matrix", "federation", "v1", ("state" | "state_ids") as what, room]:
                return self.state(self.rooms[room], query["event_id"][0], what == "state_ids")
            case ["_matrix", "federation", "v1", "event_auth", room, event]:
                room = self.rooms[room]
                return {"auth_chain": [event.json for event in room.auth_chain([room.events[event]])]}
            case ["_matrix", "federation", "v1", "get_missing_events", room]:
                return self.missing(self.rooms[room], body)
            case ["_matrix", "federation", "v1", "backfill", _]:
                return {"origin": self.name, "origin_server_ts": now(), "pdus": []}
            case ["_matrix", "federation", "v1", "user", "devices", user]:
                return {"user_id": user, "stream_id": 1, "devices": []}
            case ["_matrix", "federation", "v1", "user", "keys", "query"]:
                return {"device_keys": {}}
        return None

    def make_join(self, room: Room, user: str) -> dict:
        newest = room.newest()
        view = room.after(newest)
        body = {
            "type": "m.room.member",
            "room_id": room.id,
            "sender": user,
            "state_key": user,
            "content": {"membership": "join"},
            "depth": newest.depth + 1,
            "origin_server_ts": now(),
            "prev_events": [newest.reference()],
        }
        body["auth_events"] = [event.reference() for event in room.auth_of(body, view)]
        return {"room_version": str(room.version), "event": body}

    def send_join(self, room: Room, body: dict) -> dict:
        view = room.after(room.newest())
        # What a joining server signed stays as it is.
        event = Event.__new__(Event)
        event.version, event.json = room.version, body
        rehashed = Event(body, room.version, self.name, self.key)
        event.hash, event.id = rehashed.hash, rehashed.id
        room.add(event, view)
        state = list(view.values())
        return {
            "origin": self.name,
            "members_omitted": False,
            "state": [event.json for event in state],
            "auth_chain": [event.json for event in room.auth_chain(state)],
            "event": body,
        }

    def state(self, room: Room, event_id: str, only_ids: bool) -> dict:
        state = list(room.views[event_id].values())
        chain = room.auth_chain(state)
        if only_ids:
            return {"pdu_ids": [event.id for event in state], "auth_chain_ids": [event.id for event in chain]}
        return {"pdus": [event.json for event in state], "auth_chain": [event.json for event in chain]}

    def missing(self, room: Room, body: dict) -> dict:
        earliest, found = set(body["earliest_events"]), {}
        left = [event_id for last in body["latest_events"] for event_id in room.ids(room.events[last].prev_events)]
        while left and len(found) < body.get("limit", 10):
            event = room.events.get(left.pop(0))
            if event and event.id not in earliest and event.id not in found:
                found[event.id] = event
                left += room.ids(event.prev_events)
        return {"events": [event.json for event in sorted(found.values(), key=lambda event: event.depth)]}


class Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        split = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        try:
            answer = self.fake.answer(self.command, split.path, parse_qs(split.query), body)
        except (KeyError, StopIteration):
            answer = None
        status = 200 if answer is not None else 404
        data = encode_canonical_json(answer if answer is not None else {"errcode": "M_NOT_FOUND", "error": "not here"})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = handle_any

    def log_message(self, *_):
        pass
