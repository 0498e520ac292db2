"""People and what they have made: where requests take valid tokens and ids from."""

import base64
import itertools

import requests

PASSWORD = "correct horse battery"
names = itertools.count()


class People:
    """Alice, who asks, Bob, in a room with some of everything, and Carol, who is banned from it. Made anew where a request has ended them."""

    def __init__(self, url: str, page: str):
        self.url, self.page = url, page
        self.session = requests.Session()
        self.session.trust_env = False

    def ask(self, method: str, path: str, body=None, token: str | None = None, **more):
        headers = {"authorization": f"Bearer {token or self.token}"}
        answer = self.session.request(method, self.url + path, json=body, headers=headers, timeout=60, **more)
        answer.raise_for_status()
        return answer.json()

    def register(self, name: str):
        body = {"username": f"{name}{next(names)}", "password": PASSWORD, "auth": {"type": "m.login.dummy"}, "refresh_token": True}
        return self.ask("POST", "/_matrix/client/v3/register", body, token="none")

    def begin(self):
        """New people in new rooms."""
        alice, bob, carol = (self.register(name) for name in ("alice", "bob", "carol"))
        self.token, self.alice, self.bob = alice["access_token"], alice["user_id"], bob["user_id"]
        theirs = bob["access_token"]
        client = "/_matrix/client/v3"
        alias = f"fuzz{next(names)}"
        made = {"preset": "public_chat", "room_alias_name": alias, "name": "Fuzz", "topic": "Anything"}
        room = self.ask("POST", f"{client}/createRoom", made)["room_id"]
        space = self.ask("POST", f"{client}/createRoom", {"creation_content": {"type": "m.space"}})["room_id"]
        version = self.ask("POST", f"{client}/createRoom", {"room_version": "10", "invite": [self.bob]})["room_id"]
        self.ask("POST", f"{client}/join/{room}", {}, theirs)
        self.ask("POST", f"{client}/rooms/{room}/ban", {"user_id": carol["user_id"]})
        knocking = {"initial_state": [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]}
        closed = self.ask("POST", f"{client}/createRoom", knocking, theirs)["room_id"]
        left = self.ask("POST", f"{client}/createRoom", {"preset": "public_chat"}, theirs)["room_id"]
        self.ask("POST", f"{client}/join/{left}", {})
        self.ask("POST", f"{client}/rooms/{left}/leave", {})
        self.ask("PUT", f"{client}/rooms/{space}/state/m.space.child/{room}", {"via": ["localhost"]})
        says = lambda text, token, **more: self.ask(  # noqa: E731
            "PUT",
            f"{client}/rooms/{room}/send/m.room.message/t{next(names)}",
            {"msgtype": "m.text", "body": text, **more},
            token,
        )["event_id"]
        first = says("tea is ready", self.token)
        reply = says("thank you", theirs, **{"m.relates_to": {"rel_type": "m.thread", "event_id": first}})
        topic = self.ask("PUT", f"{client}/rooms/{room}/state/m.room.topic/", {"topic": "Tea"})["event_id"]
        filter_id = self.ask("POST", f"{client}/user/{self.alice}/filter", {"room": {"timeline": {"limit": 3}}})["filter_id"]
        self.ask("PUT", f"{client}/user/{self.alice}/account_data/fuzz.data", {"a": 1})
        self.ask("PUT", f"{client}/user/{self.alice}/rooms/{room}/account_data/fuzz.data", {"a": 1})
        self.ask("PUT", f"{client}/user/{self.alice}/rooms/{room}/tags/m.favourite", {"order": 0.5})
        self.ask("PUT", f"{client}/pushrules/global/room/{room}", {"actions": ["notify"]})
        key = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": base64.b64encode(b"7" * 32).decode().rstrip("=")}}
        backup = self.ask("POST", f"{client}/room_keys/version", key)["version"]
        session = {"first_message_index": 1, "forwarded_count": 0, "is_verified": False, "session_data": {"ciphertext": "a"}}
        self.ask("PUT", f"{client}/room_keys/keys/{room}/s1?version={backup}", session)
        picture = self.session.post(
            f"{self.url}/_matrix/media/v3/upload", data=PICTURE, timeout=60,
            headers={"authorization": f"Bearer {self.token}", "content-type": "image/png"},
        ).json()["content_uri"]
        reserved = self.ask("POST", "/_matrix/media/v1/create")["content_uri"]
        media = [uri.rsplit("/", 1)[1] for uri in (picture, reserved)]
        batch = self.ask("GET", f"{client}/sync?timeout=0")["next_batch"]
        here = "localhost"
        self.ids = {
            "roomid": [room, room, room, space, version, closed, left, "!unknown:elsewhere.example"],
            "roomidoralias": [room, f"#{alias}:{here}", version, closed, left],
            "roomalias": [f"#{alias}:{here}", f"#new{next(names)}:{here}"],
            "userid": [self.alice, self.alice, self.bob, carol["user_id"], "@someone:elsewhere.example"],
            "eventid": [first, reply, topic, "$unknown"],
            "deviceid": [alice["device_id"], bob["device_id"]],
            "eventtype": ["m.room.message", "m.room.topic", "m.room.member", "m.room.power_levels", "fuzz.event"],
            "statekey": ["", self.alice, self.bob, "x"],
            "txnid": [f"txn{next(names)}" for _ in range(50)],
            "filterid": [filter_id],
            "filter": [filter_id, '{"room":{"timeline":{"limit":2}}}'],
            "servername": [here],
            "mediaid": media,
            "filename": ["a.png"],
            "tag": ["m.favourite", "u.fuzz"],
            "type": ["fuzz.data", "m.direct"],
            "kind": ["room", "override", "content", "sender", "underride"],
            "ruleid": [room, ".m.rule.master", "fuzz"],
            "receipttype": ["m.read", "m.read.private", "m.fully_read"],
            "reltype": ["m.thread", "m.annotation"],
            "version": [backup],
            "sessionid": ["s1"],
            "keyname": ["displayname", "avatar_url", "m.tz"],
            "since": [batch],
            "from": [batch],
            "to": [batch],
            "dir": ["b", "f"],
            "url": [self.page, self.page, f"{self.page}#a", "http://127.0.0.1:1/", "file:///etc/passwd", "https://[::1", "no url"],
            "method": ["scale", "crop"],
            "membership": ["join", "leave", "ban"],
            "threadid": ["main", first],
            "username": [f"new{next(names)}" for _ in range(20)],
            "rooms": [room],
            "user": [self.alice],
            "password": [PASSWORD],
            "refreshtoken": [alice["refresh_token"]],
        }
        self.auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": self.alice}, "password": PASSWORD}


# One red pixel.
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
