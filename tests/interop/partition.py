"""Three vatra servers whose network is cut and healed while both sides write: partition.py PATH_OF_VATRA FOLDER [--schedules N].

Each schedule is a room and a seed. People of all servers give and take power, ban, change topics and talk, while now one server, now
all are cut off. Within two minutes of healing all servers must have the same state and the same ends of the room's graph, and every
message, topic and change of power that was answered with 200 must be on every server. What was good is written down in
FOLDER/partition.json. Prints 'N passed, N failed'. Needs root, for the namespaces.
"""

import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import requests

from book import Book, main
from fake import FakeServer
from net import Net
from people import Person, Refused, eventually, quote
from servers import Authority, Vatra

SERVERS = 3
VERSIONS = ["10", "11", "12"]
WITHIN = 120
OPTIONS = {"--schedules": {"type": int, "default": 20, "help": "of each room version"}}


class Isolated(Vatra):
    """A vatra in a namespace of its own."""

    def __init__(self, folder: Path, authority: Authority, binary: str, net: Net, number: int):
        self.net, self.number, self.kind = net, number, f"vatra{number}"
        super().__init__(folder, authority, binary)

    def place(self):
        self.address = self.net.address(self.number)
        self.name = f"{self.address}:8448"
        self.client_address = f"{self.net.client_address(self.number)}:8008"
        self.networks = f'allowed_networks = ["{self.net.common}"]'

    def command(self):
        return ["ip", "netns", "exec", self.net.name(self.number), *super().command()]


class Schedule:
    """A room, its people, and what they do."""

    def __init__(self, servers: list[Isolated], fake: FakeServer, net: Net, seed: int, version: str):
        self.random = random.Random(f"{seed} of {version}")
        self.servers, self.fake, self.net, self.version = servers, fake, net, version
        tag = f"{seed}-{version}"
        # The first of each server keeps the peace; the others quarrel.
        self.keepers = [Person(server, f"keeper{tag}") for server in servers]
        self.others = [Person(server, f"other{number}-{tag}") for server in servers for number in range(2)]
        self.said: list[str] = []

    def begin(self):
        founder = self.keepers[0]
        users = {person.id: 90 for person in self.keepers[1:]} | {person.id: 75 for person in self.others}
        if self.version != "12":
            users[founder.id] = 100
        levels = {"users": users, "events": {"m.room.power_levels": 50}}
        self.room = founder.create(preset="public_chat", room_version=self.version, power_level_content_override=levels)
        for person in self.keepers[1:] + self.others:
            person.join(self.room, founder)
        # Whose server may ask for every event.
        self.fake.join(founder.server.name, self.room, f"@present:{self.fake.name}")
        everybody = len(self.keepers) + len(self.others) + 1
        for keeper in self.keepers:
            members = lambda: len(keeper.get(f"/rooms/{quote(self.room)}/joined_members")["joined"]) == everybody
            eventually("all members", members, 60)

    def act(self):
        """Someone does something; a refusal is no fault."""
        person = self.random.choice(self.others)
        target = self.random.choice([other for other in self.others if other is not person])
        try:
            match self.random.choice(["say", "say", "topic", "ban", "unban", "level", "level", "join"]):
                case "say":
                    self.said.append(person.send(self.room, f"{len(self.said)}"))
                case "topic":
                    self.said.append(person.set_state(self.room, "m.room.topic", {"topic": f"{len(self.said)}"}))
                case "ban":
                    self.random.choice(self.keepers).act(self.room, "ban", user_id=target.id)
                case "unban":
                    self.random.choice(self.keepers).act(self.room, "unban", user_id=target.id)
                case "level":
                    keeper = self.random.choice(self.keepers)
                    levels = keeper.state(self.room, "m.room.power_levels")
                    levels["users"][target.id] = self.random.choice([0, 25, 50, 75])
                    self.said.append(keeper.set_state(self.room, "m.room.power_levels", levels))
                case "join":
                    # Back in after a ban, or again where they are already.
                    person.join(self.room)
        except Refused as refused:
            if refused.status >= 500:
                raise

    def cut_and_heal(self):
        for _ in range(3):
            numbers = [server.number for server in self.servers]
            alone = set(numbers) if self.random.random() < 0.3 else {self.random.choice(numbers)}
            self.net.isolate(alone)
            for _ in range(self.random.randint(4, 12)):
                self.act()
            if self.random.random() < 0.5:
                # Not healed in between: the sides change.
                continue
            self.net.isolate(set())
            time.sleep(self.random.random())
        self.net.isolate(set())

    def ends(self, server: Isolated) -> list[str]:
        """The ends of the room's graph, as a server tells who would join."""
        user = quote(f"@asks:{self.fake.name}")
        versions = "&".join(f"ver={version}" for version in VERSIONS)
        path = f"/_matrix/federation/v1/make_join/{quote(self.room)}/{user}?{versions}"
        return sorted(self.fake.request(server.name, "GET", path)["event"]["prev_events"])

    def peace(self) -> str:
        """All speak once, then one: from there on the graph has one end, on every server."""
        healed = time.monotonic()
        within = lambda: healed + WITHIN - time.monotonic()
        texts = [keeper.send(self.room, "peace") for keeper in self.keepers]
        for keeper in self.keepers:
            for text in texts:
                eventually(f"a word of peace at {keeper.server.kind}", lambda: keeper.event(self.room, text), within())
        last = self.keepers[0].send(self.room, "peace to all")
        self.said += [*texts, last]
        for keeper in self.keepers:
            eventually(f"the last word at {keeper.server.kind}", lambda: keeper.event(self.room, last), within())
        states = [keeper.whole_state(self.room) for keeper in self.keepers]
        ends = [self.ends(server) for server in self.servers]
        differences = [set(states[0].items()) ^ set(state.items()) for state in states[1:]]
        assert not any(differences), f"states differ: {differences}"
        assert all(end == ends[0] for end in ends), f"ends differ: {ends}"
        took = time.monotonic() - healed
        self.nothing_missing()
        return f"{len(self.said)} events, one state after {took:.1f} s"

    def nothing_missing(self):
        """Every event is on every server: seen, or put aside because its sender had lost the right when it arrived."""
        fetch = lambda server, event: self.fake.request(server.name, "GET", f"/_matrix/federation/v1/event/{quote(event)}")
        for event in self.said:
            for keeper in self.keepers:
                try:
                    keeper.event(self.room, event)
                except Refused:
                    try:
                        fetch(keeper.server, event)
                    except requests.HTTPError as error:
                        raise AssertionError(f"{event} is not on {keeper.server.kind}: {error}") from None


def play(arguments, book: Book, work: Path, stack: ExitStack):
    net = Net(SERVERS)
    stack.callback(net.close)
    authority = Authority(work)
    servers = [Isolated(work, authority, str(arguments.vatra), net, number) for number in range(1, SERVERS + 1)]
    for server in servers:
        book.start(server, stack)
    fake = FakeServer(authority, "asks", net.ours)
    stack.callback(fake.stop)

    def one(seed: int, version: str) -> str:
        schedule = Schedule(servers, fake, net, seed, version)
        net.isolate(set())
        schedule.begin()
        schedule.cut_and_heal()
        return schedule.peace()

    for seed in range(arguments.schedules):
        for version in VERSIONS:
            book.play(f"schedule {seed} of version {version}", lambda: one(seed, version))
    for server in servers:
        book.play(f"check of {server.kind}", server.check, again=True)


if __name__ == "__main__":
    sys.exit(main("partition", __doc__, OPTIONS, play))
