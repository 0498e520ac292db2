"""People who use a server through its client-server API."""

import time
import uuid
from urllib.parse import quote as quote_path

import requests

PATIENCE = 30


def quote(text: str) -> str:
    """As one part of a path: event ids of version 3 have slashes."""
    return quote_path(text, safe="")


def via(*servers) -> list[tuple[str, str]]:
    """The parameters that name servers which are in a room, as they were called and as they are."""
    return [(word, server.name) for word in ("server_name", "via") for server in servers]


class Refused(Exception):
    """An answer that is an error of the API."""

    def __init__(self, request: str, status: int, body):
        super().__init__(f"{request}: {status} {body}")
        self.status, self.body = status, body


def eventually(what: str, find, patience: float = PATIENCE):
    """What `find` gives once it gives something."""
    deadline = time.monotonic() + patience
    last = None
    while True:
        try:
            found = find()
            if found:
                return found
        except (Refused, requests.RequestException) as error:
            last = error
        if time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    raise AssertionError(f"not within {patience} s: {what}" + (f" ({last})" if last else ""))


class Person:
    """An account on a server, with one device."""

    def __init__(self, server, name: str):
        self.server, self.session = server, requests.Session()
        auth = {"type": "m.login.dummy"}
        body = {"username": name, "password": f"{name} has a password", "auth": auth}
        self.token = None
        registered = self.post("/register", body)
        self.id, self.token, self.device = registered["user_id"], registered["access_token"], registered["device_id"]
        self.since = None

    def call(self, method: str, path: str, body=None, prefix="/_matrix/client/v3", **more):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= more.pop("headers", {})
        url = f"{self.server.url}{prefix}{path}"
        answer = self.session.request(method, url, json=body, headers=headers, timeout=60, **more)
        if answer.status_code != 200:
            raise Refused(f"{method} {path}", answer.status_code, answer.text)
        return answer

    def get(self, path: str, **more):
        return self.call("GET", path, **more).json()

    def post(self, path: str, body=None, **more):
        return self.call("POST", path, body if body is not None else {}, **more).json()

    def put(self, path: str, body, **more):
        return self.call("PUT", path, body, **more).json()

    # Rooms

    def create(self, **fields) -> str:
        return self.post("/createRoom", {"room_version": "11"} | fields)["room_id"]

    def act(self, room: str, action: str, **body):
        return self.post(f"/rooms/{quote(room)}/{action}", body)

    def invite(self, room: str, other: "Person"):
        self.act(room, "invite", user_id=other.id)

    def join(self, room_or_alias: str, *by: "Person", **body):
        """Joins, by way of these people's servers."""
        servers = via(*(person.server for person in by))
        return self.post(f"/join/{quote(room_or_alias)}", body, params=servers)["room_id"]

    def send(self, room: str, text: str) -> str:
        return self.send_event(room, "m.room.message", {"msgtype": "m.text", "body": text})

    def send_event(self, room: str, kind: str, content: dict) -> str:
        return self.put(f"/rooms/{quote(room)}/send/{kind}/{uuid.uuid4().hex}", content)["event_id"]

    def set_state(self, room: str, kind: str, content: dict, key: str = "") -> str:
        return self.put(f"/rooms/{quote(room)}/state/{kind}/{quote(key)}", content)["event_id"]

    def state(self, room: str, kind: str, key: str = ""):
        """The content of a state event; None if there is none."""
        try:
            return self.get(f"/rooms/{quote(room)}/state/{kind}/{quote(key)}")
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def whole_state(self, room: str) -> dict:
        """The current state: (type, key) to event id."""
        return {(event["type"], event["state_key"]): event["event_id"] for event in self.get(f"/rooms/{quote(room)}/state")}

    def membership(self, room: str, other: "Person"):
        member = self.state(room, "m.room.member", other.id)
        return member and member["membership"]

    def event(self, room: str, event: str):
        return self.get(f"/rooms/{quote(room)}/event/{quote(event)}")

    def history(self, room: str, most: int) -> list[dict]:
        """The newest events, newest first, page by page."""
        events, token = [], None
        while len(events) < most:
            page = self.get(f"/rooms/{quote(room)}/messages", params={"dir": "b", "limit": 100} | ({"from": token} if token else {}))
            events += page["chunk"]
            token = page.get("end")
            if not token:
                break
        return events

    def bodies(self, room: str, most: int = 50) -> list[str]:
        """The newest texts, oldest first."""
        texts = [event["content"].get("body") for event in self.history(room, most) if event["type"] == "m.room.message"]
        return texts[::-1]

    # Sync

    def sync(self, timeout: int = 500) -> dict:
        params = {"timeout": timeout} | ({"since": self.since} if self.since else {})
        answer = self.get("/sync", params=params)
        self.since = answer["next_batch"]
        return answer

    def see(self, what: str, find):
        """What `find` gives for the first sync for which it gives something."""
        return eventually(f"{self.id} sees {what}", lambda: find(self.sync()))

    def see_ephemeral(self, room: str, kind: str, find):
        def look(sync):
            joined = sync.get("rooms", {}).get("join", {}).get(room, {})
            events = joined.get("ephemeral", {}).get("events", [])
            return any(find(event["content"]) for event in events if event["type"] == kind)

        return self.see(f"{kind} in {room}", look)
