"""What two servers made of the same events: the state before each, what they rejected, what they do not show, and where the room ends.

Two differences are Synapse's fault (1.163.2) and known by what makes them. Each must show exactly as that makes it show.

KEPT ENDS. Synapse keeps no record of what a *rejected* event follows. An event that only a rejected one follows therefore stays an end of the
room's graph there, also when the room has gone on after the rejected one. By the spec the rejected event is part of the graph ("events may be
included in the room DAG even though they should be rejected"), and a new event follows "all of the events in the room for which it has not
yet seen a child": https://spec.matrix.org/v1.19/server-server-api/#pdus. With such an end Synapse resolves its current state out of one state
too many. So its ends before peace is made must be among those that this makes (it drops some that are far back), and while there are such
ends, what it soft-fails may differ.

OWN EVENTS. Since version 2 states are resolved with what is not in the full auth chains of all of them, "the union of the auth chains for each
event" of a state, and "the auth chain of an event E is the set containing all of E's auth events, all of their auth events, and so on":
https://spec.matrix.org/v1.19/rooms/v2/#definitions. Synapse counts the events of the state themselves in. What one state holds and only
another's events have in their chains is then no difference, and power events may be sorted otherwise. So its states must be those that
the spec's algorithm gives with that one change; ours must be those that it gives without.
"""

from events import Event
from fake import Room
from people import Person, quote
from reference import Reference


def ask(room: Room, person: Person, path: str):
    """What the person's server answers the fake one."""
    return room.server.request(person.server.name, "GET", f"/_matrix/federation/v1/{path}")


def ends(room: Room, founder: str, person: Person) -> set[str]:
    """Where the room's graph ends, as a server tells a member who would leave."""
    template = ask(room, person, f"make_leave/{quote(room.id)}/{quote(founder)}")
    return set(room.ids(template["event"]["prev_events"]))


class Verdict:
    """What a server made of a room, in the end."""

    def __init__(self, room: Room, told: list[Event], person: Person):
        """`told` are the events in the order in which the server was told them."""
        self.kind, self.room, self.told = person.server.kind, room, told
        ids = {event.id for event in told}
        self.rejected = person.server.rejected() & ids
        self.shown = {event["event_id"] for event in person.history(room.id, 500)} & ids
        self.state = set(person.whole_state(room.id).values())
        before = lambda event: ask(room, person, f"state_ids/{quote(room.id)}?event_id={quote(event)}")["pdu_ids"]
        self.before = {event: set(before(event)) for event in ids - self.rejected}

    def followed(self, through_rejected: bool) -> list[set[str]]:
        """The ends of the graph before each event, as they must be if this is what is shown and what is rejected."""
        ends, every = set(self.room.ids(self.told[0].prev_events)), []
        for event in self.told:
            every.append(ends)
            if event.id not in self.shown:
                continue
            # What follows an unseen event follows what that one follows.
            left, passed = self.room.ids(event.prev_events), set()
            while left:
                earlier = left.pop()
                if earlier in passed:
                    continue
                passed.add(earlier)
                unseen = earlier in self.before and earlier not in self.shown
                if unseen or (through_rejected and earlier in self.rejected):
                    left += self.room.ids(self.room.events[earlier].prev_events)
            ends = ends - passed | {event.id}
        return every


class Faults(list):
    """What differs, in words that name events by their place."""

    def __init__(self, told: list[Event]):
        super().__init__()
        self.number = {event.id: at for at, event in enumerate(told)}

    def names(self, ids) -> list[tuple[int, str]]:
        return sorted((self.number.get(event, -1), event) for event in ids)

    def same(self, what: str, found: set[str], wanted: set[str]):
        if found != wanted:
            self.append(f"{what}: {self.names(found - wanted)}, not {self.names(wanted - found)}")


def compare(ours: Verdict, theirs: Verdict, peace: int, ends_before: list[set[str]]) -> tuple[list[str], str]:
    """What differs that is not known to be their fault, and a few words on the room. `peace` is the place of the event before which both
    had these ends."""
    room, told, faults = ours.room, ours.told, Faults(ours.told)
    kept, right = theirs.followed(through_rejected=False), theirs.followed(through_rejected=True)
    faults.same(f"{ours.kind} has the ends", ends_before[0], {told[peace - 1].id})
    faults.same(f"{theirs.kind} has the ends", ends_before[1] | right[peace], ends_before[1] & kept[peace])
    wanted = [ours.before, ours.before]
    if room.version >= 2:
        references = (Reference(room, ours.rejected, with_own=False), Reference(room, theirs.rejected, with_own=True))
        wanted = [{event: set(state.values()) for event, state in reference.before.items()} for reference in references]
    for verdict, states in zip((ours, theirs), wanted):
        for event, state in verdict.before.items():
            faults.same(f"{verdict.kind}'s state before {faults.number[event]}", state, states.get(event, state))
        # The last is a message, and follows everything.
        faults.same(f"{verdict.kind}'s state in the end", verdict.state, verdict.before.get(told[-1].id, set()))
    unlike = [at for at, event in enumerate(told) if wanted[0].get(event.id) != wanted[1].get(event.id)]
    # The first of each kind is judged by a state that is wrong; what comes later may follow from it.
    rejected = faults.names(ours.rejected ^ theirs.rejected)
    if rejected and rejected[0][0] not in unlike:
        faults.append(f"rejected by one only: {rejected}")
    shown = faults.names(ours.shown ^ theirs.shown)
    if shown and kept[shown[0][0]] == right[shown[0][0]] and shown[0][0] < min(unlike, default=len(told)):
        faults.append(f"shown by one only: {shown}")
    soft = len(told) - len(ours.shown | ours.rejected)
    words = [f"{len(told)} events, {len(ours.rejected)} rejected, {soft} soft-failed"]
    words += [f"{theirs.kind} KEPT ENDS"] if kept != right else []
    words += [f"{theirs.kind} counts OWN EVENTS and has another state before {unlike}"] if unlike else []
    words += [f"it rejects {len(rejected)} and shows {len(shown)} otherwise"] if rejected or shown else []
    return faults, "; ".join(words)
