"""What two servers made of the same events: the state before each, what they rejected, what they do not show, and where the room ends.

One difference is Synapse's fault and known (1.163.2). It keeps no record of what a *rejected* event follows. An event that only a
rejected one follows therefore stays an end of the room's graph there, also when the room has gone on after the rejected one. By the spec the
rejected event is part of the graph ("events may be included in the room DAG even though they should be rejected"), and a new event follows
"all of the events in the room for which it has not yet seen a child": https://spec.matrix.org/v1.19/server-server-api/#pdus. With
such an end Synapse resolves its current state out of one state too many, and soft-fails by that. So its ends before peace is made must be
exactly those that this fault makes; and while there are such ends, what it soft-fails may differ. Nothing else may.
"""

from events import Event
from fake import Room
from people import Person, quote


def ask(room: Room, person: Person, path: str):
    """What the person's server answers the fake one."""
    return room.server.request(person.server.name, "GET", f"/_matrix/federation/v1/{path}")


def ends(room: Room, founder: str, person: Person) -> set[str]:
    """Where the room's graph ends, as a server tells a member who would join."""
    template = ask(room, person, f"make_join/{quote(room.id)}/{quote(founder)}?ver={room.version}")
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


def compare(ours: Verdict, theirs: Verdict, peace: int, ends_before: list[set[str]]) -> tuple[list[str], str]:
    """What differs that is not known to be their fault, and a few words on the room. `peace` is the place of the event before which both
    had these ends."""
    told, faults = ours.told, []
    number = {event.id: at for at, event in enumerate(told)}
    names = lambda ids: sorted((number.get(event, -1), event) for event in ids)
    kept, right = theirs.followed(through_rejected=False), theirs.followed(through_rejected=True)
    for verdict, found, wanted in ((ours, ends_before[0], {told[peace - 1].id}), (theirs, ends_before[1], kept[peace])):
        if found != wanted:
            faults.append(f"{verdict.kind} has the ends {names(found)}, not {names(wanted)}")
    if ours.rejected != theirs.rejected:
        faults.append(f"rejected by one only: {names(ours.rejected ^ theirs.rejected)}")
    for event in told:
        before = [verdict.before.get(event.id) for verdict in (ours, theirs)]
        if None not in before and before[0] != before[1]:
            faults.append(f"the state before {number[event.id]}: {names(before[0] ^ before[1])}")
    # The last is a message, and follows everything.
    for verdict in (ours, theirs):
        last = verdict.before.get(told[-1].id, set())
        if verdict.state != last:
            faults.append(f"{verdict.kind} has another state than at the last event: {names(verdict.state ^ last)}")
    unlike = names(ours.shown ^ theirs.shown)
    # The first is judged while the ends are wrong; what comes later may follow from it.
    if unlike and kept[unlike[0][0]] == right[unlike[0][0]]:
        faults.append(f"shown by one only: {unlike}")
    soft = len(told) - len(ours.shown | ours.rejected)
    words = f"{len(told)} events, {len(ours.rejected)} rejected, {soft} soft-failed"
    if kept != right:
        words += f"; {theirs.kind} kept ends that were passed" + (f", and shows {len(unlike)} otherwise" if unlike else "")
    return faults, words
