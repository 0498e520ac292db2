"""Random rooms told to vatra and to Synapse in the same order: both must come to the same states, and take the same events.

A room is made on a fake server, one person of each real server joins, and then its people quarrel on forks of its history: powers
given and taken, bans, kicks, joins, invites, rules, topics. Most of it is allowed where it is said, some is not.
"""

import random

from events import Event
from fake import FakeServer, Room
from people import Person, eventually, quote, via
from verdicts import Verdict, compare, ends

VERSIONS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
PEOPLE = 5
# Seconds for a server to judge the events of a room, on a machine that is busy with other things.
PATIENCE = 300
# How many events one may follow.
MOST_PREV = 20
LEVELS = [0, 25, 50, 75]


class Quarrel:
    """A room and what happens in it, by a seed."""

    def __init__(self, fake: FakeServer, seed: int):
        self.random = random.Random(seed)
        self.version = VERSIONS[seed % len(VERSIONS)]
        self.fake, self.room = fake, Room(fake, self.version)
        # The first is never in danger: the last word is theirs.
        self.people = [f"@person{number}:{fake.name}" for number in range(PEOPLE)]
        self.told: list[Event] = []

    def begin(self):
        """A public room in which half of the people are."""
        founder = self.people[0]
        create = {"room_version": str(self.version)} | ({"creator": founder} if self.version < 11 else {})
        levels = {"users": {self.people[1]: 75, self.people[2]: 50}, "state_default": 50, "events": {"m.room.power_levels": 50}}
        if self.version < 12:
            levels["users"][founder] = 100
        steps = [
            (founder, "m.room.create", create, ""),
            (founder, "m.room.member", {"membership": "join"}, founder),
            (founder, "m.room.power_levels", levels, ""),
            (founder, "m.room.join_rules", {"join_rule": "public"}, ""),
            (self.people[1], "m.room.member", {"membership": "join"}, self.people[1]),
            (self.people[2], "m.room.member", {"membership": "join"}, self.people[2]),
        ]
        view, last = {}, []
        for sender, kind, content, key in steps:
            event = self.room.make(sender, kind, content, last, view, key)
            view, last = self.room.after(event), [event]
        self.fake.rooms[self.room.id] = self.room

    def level(self, view: dict, user: str) -> int:
        if self.version >= 12 and user == self.people[0]:
            return 1000
        return view[("m.room.power_levels", "")].content["users"].get(user, 0)

    def membership(self, view: dict, user: str) -> str:
        member = view.get(("m.room.member", user))
        return member.content["membership"] if member else "leave"

    def act(self, view: dict):
        """Something that someone might do: (sender, type, content, state key)."""
        pick = self.random
        plausible = pick.random() < 0.92
        joined = [user for user in self.people if self.membership(view, user) == "join"]
        sender = pick.choice(joined if plausible else self.people)
        strong = self.level(view, sender) >= 50
        others = [user for user in self.people[1:] if user != sender]
        weaker = [user for user in others if self.level(view, user) < self.level(view, sender)]
        kinds = ["message", "message", "leave"]
        if strong or not plausible:
            kinds += ["topic", "levels", "levels", "ban", "ban", "kick", "unban", "rules", "invite"]
        kind = pick.choice(kinds)
        target = pick.choice(weaker if plausible and weaker else others)
        match kind:
            case "levels":
                content = {**view[("m.room.power_levels", "")].content}
                content["users"] = dict(content["users"])
                most = self.level(view, sender) if plausible else 100
                content["users"][target] = pick.choice([level for level in LEVELS if level <= most])
                if pick.random() < 0.3 and self.level(view, sender) >= 75:
                    content["ban"] = pick.choice([25, 50, 75])
                return sender, "m.room.power_levels", content, ""
            case "ban" | "kick" | "unban" | "invite":
                membership = {"ban": "ban", "invite": "invite"}.get(kind, "leave")
                return sender, "m.room.member", {"membership": membership}, target
            case "rules":
                return sender, "m.room.join_rules", {"join_rule": pick.choice(["public", "invite"])}, ""
            case "topic":
                return sender, "m.room.topic", {"topic": f"topic {pick.random()}"}, ""
            case "leave":
                outside = [user for user in self.people[1:] if self.membership(view, user) != "join"]
                if outside and pick.random() < 0.7:
                    user = pick.choice(outside)
                    return user, "m.room.member", {"membership": "join"}, user
                if sender != self.people[0]:
                    return sender, "m.room.member", {"membership": "leave"}, sender
        return sender, "m.room.message", {"msgtype": "m.text", "body": f"{pick.random()}"}, None

    def quarrel(self, count: int):
        """Events on forks that meet again."""
        ends = [self.room.newest()]
        for _ in range(count):
            # Fork off something recent, or join some ends.
            if self.random.random() < 0.4:
                prev = [self.random.choice((self.told or ends)[-5:])]
            else:
                prev = self.random.sample(ends, min(len(ends), self.random.choice([1, 2, 3])))
            views = [self.room.after(event) for event in prev]
            self.random.shuffle(views)
            view = {}
            for one in views:
                view |= one
            sender, kind, content, key = self.act(view)
            # What is the same in everything, its millisecond too, would be one event.
            content = content | {"number": len(self.told)}
            event = self.room.make(sender, kind, content, prev, view, key)
            self.told.append(event)
            ends = [end for end in ends if end not in prev] + [event]
            if len(ends) > 6:
                self.meet(ends)
                ends = [self.told[-1]]
        self.meet(ends)

    def meet(self, ends: list[Event]):
        """The founder speaks after all ends, with rights that nobody can take away."""
        founder = self.people[0]
        events = list(self.room.events.values())
        first = {("m.room.create", ""): events[0], ("m.room.member", founder): events[1], ("m.room.power_levels", ""): events[2]}
        view = {}
        for end in ends:
            view |= self.room.after(end)
        body = {"type": "m.room.message", "sender": founder}
        auth = self.room.auth_of(body, first)
        content = {"msgtype": "m.text", "body": f"peace {len(self.told)}"}
        self.told.append(self.room.make(founder, "m.room.message", content, ends, view, auth=auth))

    def make_peace(self):
        """The founder speaks after every event there is, so that nothing else can be an end, whatever a server made of it."""
        left = list(self.told)
        while left:
            now, left = left[: MOST_PREV - 1], left[MOST_PREV - 1 :]
            self.meet(list({event.id: event for event in [*now, self.told[-1]]}.values()))


def describe(quarrel: Quarrel) -> str:
    lines = []
    number = {event.id: at for at, event in enumerate(quarrel.told)}
    for at, event in enumerate(quarrel.told):
        prev = ",".join(str(number.get(earlier, "-")) for earlier in quarrel.room.ids(event.prev_events))
        lines.append(f"{at:3} after {prev:8} {event.sender.split(':')[0]} {event.type} {event.state_key or ''} {event.content}")
    return "\n".join(lines)


def tell(fake: FakeServer, person: Person, room: str, events: list[Event]):
    """One by one, so that Synapse takes them in this order: it sorts by the time of arrival. Ends when all are judged."""
    for event in events:
        told = fake.tell(person.server.name, [event])
        assert "error" not in told.get(event.id, {}), f"{person.server.kind}: {told}"
    eventually(f"{person.server.kind} judges what it was told", lambda: not person.server.at_work(room), PATIENCE)


def play(fake: FakeServer, people: list[Person], seed: int, count: int = 30) -> str:
    """One room, for the people of vatra and of Synapse."""
    quarrel = Quarrel(fake, seed)
    quarrel.begin()
    room = quarrel.room.id
    for person in people:
        person.post(f"/join/{quote(room)}", {}, params=via(fake))
    # Who joined first does not know of the other yet.
    tell(fake, people[0], room, [quarrel.room.newest()])
    quarrel.quarrel(count)
    for person in people:
        tell(fake, person, room, quarrel.told)
    ends_before = [ends(quarrel.room, quarrel.people[0], person) for person in people]
    peace = len(quarrel.told)
    quarrel.make_peace()
    for person in people:
        tell(fake, person, room, quarrel.told[peace:])
    verdicts = [Verdict(quarrel.room, quarrel.told, person) for person in people]
    faults, words = compare(*verdicts, peace, ends_before)
    if faults:
        raise AssertionError("\n".join([f"version {quarrel.version}, seed {seed}", *faults, describe(quarrel)]))
    return f"version {quarrel.version}, {words}"
