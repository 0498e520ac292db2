"""Events as servers make them: hashes, signatures and ids of every room version. https://spec.matrix.org/v1.19/server-server-api/"""

import copy
import hashlib
import time

from canonicaljson import encode_canonical_json
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64

TOP = {"event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth", "prev_events", "auth_events", "origin_server_ts"}
TOP_BEFORE_11 = {"prev_state", "origin", "membership"}
LEVELS = {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}


def kept(kind: str, version: int) -> set | None:
    """The keys of content that a redaction leaves; None for all."""
    if kind == "m.room.create":
        return None if version >= 11 else {"creator"}
    if kind == "m.room.member":
        return {"membership"} | ({"join_authorised_via_users_server"} if version >= 9 else set())
    if kind == "m.room.join_rules":
        return {"join_rule"} | ({"allow"} if version >= 8 else set())
    if kind == "m.room.power_levels":
        return LEVELS | ({"invite"} if version >= 11 else set())
    if kind == "m.room.history_visibility":
        return {"history_visibility"}
    return set()


def redacted(event: dict, version: int) -> dict:
    top = TOP | (TOP_BEFORE_11 if version < 11 else set())
    slim = {key: value for key, value in event.items() if key in top}
    left = kept(event["type"], version)
    if left is not None:
        slim["content"] = {key: value for key, value in event["content"].items() if key in left}
    return slim


def digest(event: dict, *without: str) -> bytes:
    bare = {key: value for key, value in event.items() if key not in without}
    return hashlib.sha256(encode_canonical_json(bare)).digest()


class Event:
    """A signed event, and its id."""

    def __init__(self, event: dict, version: int, name: str, key):
        self.version = version
        event = copy.deepcopy(event)
        content_hash = digest(event, "unsigned", "signatures", "hashes")
        event["hashes"] = {"sha256": encode_base64(content_hash)}
        signed = sign_json(redacted(event, version), name, key)
        event["signatures"] = signed["signatures"]
        self.json = event
        self.hash = digest(redacted(event, version), "signatures", "unsigned")
        if version < 3:
            self.id = event["event_id"]
        else:
            self.id = "$" + encode_base64(self.hash, urlsafe=version >= 4)

    def __getattr__(self, name: str):
        return self.json.get(name)

    @property
    def key(self) -> tuple[str, str] | None:
        """What of the room's state it sets."""
        return (self.json["type"], self.json["state_key"]) if "state_key" in self.json else None

    def reference(self):
        """As other events refer to it."""
        return [self.id, {"sha256": encode_base64(self.hash)}] if self.version < 3 else self.id


def now() -> int:
    return int(time.time() * 1000)
