"""What people of two servers do together. Each scene is played in both directions: `here` makes the room, `there` is elsewhere."""

import hashlib
import os

import whispers
from people import Person, Refused, eventually, quote, via

VERSIONS = [str(version) for version in range(1, 13)]


class Stage:
    """Where scenes are played: gives people of the two servers, with names that nobody had before."""

    count = 0

    def __init__(self, here, there):
        self.servers = {"here": here, "there": there}

    def person(self, where: str) -> Person:
        Stage.count += 1
        return Person(self.servers[where], f"{where}{Stage.count}-{os.getpid()}")

    def pair(self) -> tuple[Person, Person]:
        return self.person("here"), self.person("there")

    def shared(self, **fields) -> tuple[Person, Person, str]:
        """Two people in a public room of the first."""
        here, there = self.pair()
        room = here.create(preset="public_chat", **fields)
        there.join(room, here)
        eventually("the join", lambda: here.membership(room, there) == "join")
        return here, there, room


def agree(room: str, *people: Person):
    """All see the same state in the end."""
    states = []

    def same():
        states[:] = [person.whole_state(room) for person in people]
        return all(state == states[0] for state in states)

    try:
        eventually(f"the same state of {room}", same)
    except AssertionError:
        differences = [set(states[0].items()) ^ set(state.items()) for state in states[1:]]
        raise AssertionError(f"states differ: {differences}") from None


def refused(status: int, work):
    try:
        work()
    except Refused as answer:
        assert answer.status == status, answer
        return
    raise AssertionError("it was allowed")


def chat(stage: Stage):
    """Rooms of every version: join, talk both ways, agree."""
    here, there = stage.pair()
    for version in VERSIONS:
        room = here.create(preset="public_chat", room_version=version, name=f"version {version}")
        there.join(room, here)
        eventually("the join", lambda: here.membership(room, there) == "join")
        there.send(room, "I am there")
        eventually("a message", lambda: "I am there" in here.bodies(room))
        here.send(room, "I am here")
        eventually("a message", lambda: there.bodies(room)[-2:] == ["I am there", "I am here"])
        assert there.state(room, "m.room.name")["name"] == f"version {version}"
        agree(room, here, there)


def invite(stage: Stage):
    """An invite is seen with the room's name, accepted, and in another room rejected."""
    here, there = stage.pair()
    for accepted in (True, False):
        room = here.create(preset="private_chat", name="By the fire")
        refused(403, lambda: there.join(room, here))
        here.invite(room, there)

        def invited(sync):
            found = sync.get("rooms", {}).get("invite", {}).get(room)
            return found and found["invite_state"]["events"]

        state = there.see("an invite", invited)
        assert any(event["type"] == "m.room.name" and event["content"]["name"] == "By the fire" for event in state), state
        if accepted:
            there.join(room)
            eventually("the join", lambda: here.membership(room, there) == "join")
            text = there.send(room, "thank you")
            eventually("a message", lambda: here.event(room, text))
            agree(room, here, there)
        else:
            there.act(room, "leave")
            eventually("the rejection", lambda: here.membership(room, there) == "leave")


def knock(stage: Stage):
    """A knock is seen, answered by an invite, and followed by a join; another is taken back."""
    here, there = stage.pair()
    rules = [{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]
    room = here.create(preset="private_chat", initial_state=rules)
    ask = lambda: there.post(f"/knock/{quote(room)}", {"reason": "it is cold"}, params=via(here.server))
    ask()
    eventually("the knock", lambda: here.membership(room, there) == "knock")
    there.act(room, "leave")
    # Synapse does not tell the other server: it does not remember which one it has asked.
    if there.server.kind == "vatra":
        eventually("the knock's end", lambda: here.membership(room, there) == "leave")
    ask()
    eventually("the knock", lambda: here.membership(room, there) == "knock")
    here.invite(room, there)
    there.see("an invite", lambda sync: room in sync.get("rooms", {}).get("invite", {}))
    there.join(room, here)
    agree(room, here, there)


def restricted(stage: Stage):
    """Members of one room may join another; others may not."""
    here, there, club = stage.shared()
    stranger = stage.person("there")
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]}
    rules = [{"type": "m.room.join_rules", "state_key": "", "content": rule}]
    room = here.create(preset="private_chat", initial_state=rules)
    refused(403, lambda: stranger.join(room, here))
    there.join(room, here)
    eventually("the join", lambda: here.membership(room, there) == "join")
    member = next(event for event in here.get(f"/rooms/{quote(room)}/state") if event.get("state_key") == there.id)
    assert member["content"]["join_authorised_via_users_server"] == here.id, member
    agree(room, here, there)


def redact(stage: Stage):
    """A redaction empties the event on the other server, whichever server's user redacts."""
    here, there, room = stage.shared()
    for writer, other in ((here, there), (there, here)):
        event = writer.send(room, "I should not have said that")
        eventually("a message", lambda: other.event(room, event)["content"].get("body"))
        writer.put(f"/rooms/{quote(room)}/redact/{quote(event)}/{event[1:9]}", {"reason": "regret"})
        eventually("the redaction", lambda: other.event(room, event)["content"] == {})


def state(stage: Stage):
    """State is set from both sides, also by who was given the power; who was not is refused."""
    here, there, room = stage.shared()
    refused(403, lambda: there.set_state(room, "m.room.topic", {"topic": "mine"}))
    levels = here.state(room, "m.room.power_levels")
    levels.setdefault("users", {})[there.id] = 50
    here.set_state(room, "m.room.power_levels", levels)
    eventually("the power", lambda: there.state(room, "m.room.power_levels")["users"].get(there.id) == 50)
    there.set_state(room, "m.room.topic", {"topic": "ours"})
    eventually("the topic", lambda: (here.state(room, "m.room.topic") or {}).get("topic") == "ours")
    # Both at once: the servers must choose the same.
    here.set_state(room, "m.room.topic", {"topic": "from here"})
    there.set_state(room, "m.room.topic", {"topic": "from there"})
    there.put(f"/profile/{there.id}/displayname", {"displayname": "Their name"})
    seen = lambda: here.state(room, "m.room.member", there.id).get("displayname") == "Their name"
    eventually("the name", seen)
    agree(room, here, there)


def backfill(stage: Stage):
    """Who joins late reads back five hundred messages, in order, none missing."""
    here, there = stage.pair()
    room = here.create(preset="public_chat")
    texts = [f"message {number}" for number in range(500)]
    for text in texts:
        here.send(room, text)
    there.join(room, here)
    eventually("all messages", lambda: there.bodies(room, 600) == texts, 120)


def media(stage: Stage):
    """A file and its thumbnail come from the other server as they were."""
    here, there = stage.pair()
    content = bytes(range(256)) * 2000
    sent = here.session.post(
        f"{here.server.url}/_matrix/media/v3/upload",
        params={"filename": "data.bin"},
        data=content,
        headers={"Authorization": f"Bearer {here.token}", "Content-Type": "application/octet-stream"},
        timeout=60,
    ).json()
    path = sent["content_uri"].removeprefix("mxc://")
    got = there.call("GET", f"/media/download/{path}", prefix="/_matrix/client/v1")
    assert hashlib.sha256(got.content).digest() == hashlib.sha256(content).digest()
    assert "data.bin" in got.headers["Content-Disposition"], got.headers
    refused(404, lambda: there.get(f"/media/download/{here.server.name}/nothing", prefix="/_matrix/client/v1"))


def ephemeral(stage: Stage):
    """Typing, receipts and presence cross over."""
    here, there, room = stage.shared()
    for one, other in ((here, there), (there, here)):
        other.sync(0)
        one.put(f"/rooms/{quote(room)}/typing/{one.id}", {"typing": True, "timeout": 20_000})
        other.see_ephemeral(room, "m.typing", lambda content: one.id in content["user_ids"])
        event = other.send(room, "seen?")
        eventually("a message", lambda: one.event(room, event))
        one.act(room, f"receipt/m.read/{quote(event)}")
        other.see_ephemeral(room, "m.receipt", lambda content: one.id in content.get(event, {}).get("m.read", {}))
        one.put(f"/presence/{one.id}/status", {"presence": "online", "status_msg": f"by the fire of {one.id}"})

        def present(sync):
            events = sync.get("presence", {}).get("events", [])
            return any(event["sender"] == one.id and "fire" in event["content"].get("status_msg", "") for event in events)

        other.see("presence", present)


def membership(stage: Stage):
    """Leaving, kicks, bans and their end; who is banned stays out."""
    here, there, room = stage.shared()
    there.act(room, "leave")
    eventually("the leave", lambda: here.membership(room, there) == "leave")
    there.join(room, here)
    eventually("the join", lambda: here.membership(room, there) == "join")
    here.act(room, "kick", user_id=there.id, reason="a test")
    there.see("the kick", lambda sync: room in sync.get("rooms", {}).get("leave", {}))
    there.join(room, here)
    eventually("the join", lambda: here.membership(room, there) == "join")
    here.act(room, "ban", user_id=there.id)
    there.see("the ban", lambda sync: room in sync.get("rooms", {}).get("leave", {}))
    refused(403, lambda: there.join(room, here))
    here.act(room, "unban", user_id=there.id)
    there.join(room, here)
    eventually("the join", lambda: here.membership(room, there) == "join")
    there.send(room, "back again")
    eventually("a message", lambda: "back again" in here.bodies(room))
    agree(room, here, there)


def upgrade(stage: Stage):
    """A room is upgraded; who is elsewhere follows the tombstone."""
    here, there, room = stage.shared(room_version="10", name="Old")
    new = here.act(room, "upgrade", new_version="11")["replacement_room"]
    tombstone = eventually("the tombstone", lambda: there.state(room, "m.room.tombstone"))
    assert tombstone["replacement_room"] == new
    there.join(new, here)
    eventually("the join", lambda: here.membership(new, there) == "join")
    assert there.state(new, "m.room.name")["name"] == "Old"
    assert there.state(new, "m.room.create")["predecessor"]["room_id"] == room


def directory(stage: Stage):
    """Aliases, the public list and profiles of the other server."""
    here, there = stage.pair()
    local = f"hearth{stage.count}-{os.getpid()}"
    room = here.create(preset="public_chat", visibility="public", room_alias_name=local, name="Listed", topic="of the list")
    alias = f"#{local}:{here.server.name}"
    found = there.get(f"/directory/room/{quote(alias)}")
    assert found["room_id"] == room and here.server.name in found["servers"], found

    def entry():
        listed = there.get("/publicRooms", params={"server": here.server.name, "limit": 100})["chunk"]
        return next((entry for entry in listed if entry["room_id"] == room), None)

    entry = eventually("the room in the list", entry)
    assert entry["name"] == "Listed" and entry["num_joined_members"] == 1, entry
    here.put(f"/profile/{here.id}/displayname", {"displayname": "The host"})
    assert there.get(f"/profile/{here.id}")["displayname"] == "The host"
    refused(404, lambda: there.get(f"/profile/@nobody:{here.server.name}"))
    assert there.join(alias) == room
    eventually("the join", lambda: here.membership(room, there) == "join")


def space(stage: Stage):
    """The rooms of a space on the other server are listed."""
    here, there = stage.pair()
    top = here.create(preset="public_chat", name="Village", creation_content={"type": "m.space"})
    child = here.create(preset="public_chat", name="House")
    here.set_state(top, "m.space.child", {"via": [here.server.name]}, child)
    there.join(top, here)
    listed = there.get(f"/rooms/{quote(top)}/hierarchy", prefix="/_matrix/client/v1")["rooms"]
    assert {room["name"] for room in listed} == {"Village", "House"}, listed


def encrypted(stage: Stage):
    """Encrypted messages both ways, new devices, and what is said while one is away."""
    whispers.play(*stage.servers.values())


SCENES = [chat, invite, knock, restricted, redact, state, backfill, media, ephemeral, membership, upgrade, directory, space, encrypted]
