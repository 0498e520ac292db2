"""vatra and Synapse live in the same rooms: run.py PATH_OF_VATRA FOLDER [--only SCENE]...

Plays every scene in both directions, then again what must survive a restart and a kill of either server, then random rooms. What
was good is written down in FOLDER/interop.json, by the hash of the binary and of these scripts, so that a run that was interrupted
goes on. Prints 'N passed, N failed'.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import dags
from book import Book, main
from fake import FakeServer
from people import eventually
from scenes import SCENES, Stage, agree
from servers import Authority, Synapse, Vatra

# Random rooms at a time. Synapse uses one core; more do not make it faster.
SIDE_BY_SIDE = 3
OPTIONS = {
    "--only": {"action": "append", "default": [], "help": "a scene, `restart` or `kill`; `none` for the random rooms alone"},
    "--dags": {"type": int, "default": 300, "help": "how many random rooms; 0 for none"},
    "--seed": {"type": int, "default": 0, "help": "of the first random room"},
}


def survives(stage: Stage, server, end):
    """A shared room goes on after a server ended: what was said while it was away arrives, and state stays one."""
    here, there, room = stage.shared(name="Before")
    here.send(room, "before")
    eventually("a message", lambda: "before" in there.bodies(room))
    other = there if server is here.server else here
    mine = here if other is there else there
    end(server)
    missed = [f"while you were away {number}" for number in range(5)]
    for text in missed:
        other.send(room, text)
    server.start()
    eventually("what was missed", lambda: mine.bodies(room)[-5:] == missed, 90)
    mine.send(room, "I am back")
    eventually("a message", lambda: "I am back" in other.bodies(room), 90)
    agree(room, here, there)


def play_scenes(book: Book, stages: list[Stage], only: list[str]):
    for scene in SCENES:
        for stage in stages:
            if not only or scene.__name__ in only:
                here = stage.servers["here"].kind
                book.play(f"{scene.__name__}, room of {here}", lambda: scene(stage))
    ends = {"restart": lambda server: server.stop(), "kill": lambda server: server.kill()}
    for what, end in ends.items():
        for server in stages[0].servers.values():
            for stage in stages:
                if not only or what in only:
                    name = f"{what} of {server.kind}, room of {stage.servers['here'].kind}"
                    book.play(name, lambda: survives(stage, server, end))


def play_rooms(book: Book, stages: list[Stage], fakes: list[FakeServer], seeds: range):
    """Random rooms, as many at a time as there are fake servers; each has one, and two people, to itself meanwhile."""
    free = SimpleQueue()
    for fake in fakes:
        free.put((fake, [stage.person("here") for stage in stages]))

    def one(seed: int):
        fake, people = free.get()
        try:
            book.play(f"random room {seed}", lambda: dags.play(fake, people, seed))
        finally:
            free.put((fake, people))

    threads = ThreadPoolExecutor(len(fakes))
    try:
        list(threads.map(one, seeds))
    finally:
        # Whoever interrupts this does not wait for the rooms that have not begun.
        threads.shutdown(cancel_futures=True)


def play(arguments, book: Book, work: Path, stack: ExitStack):
    authority = Authority(work)
    vatra, synapse = Vatra(work, authority, str(arguments.vatra)), Synapse(work, authority)
    for server in (vatra, synapse):
        book.start(server, stack)
    stages = [Stage(vatra, synapse), Stage(synapse, vatra)]
    play_scenes(book, stages, arguments.only)
    if arguments.dags:
        fakes = [FakeServer(authority, f"fake{number}") for number in range(SIDE_BY_SIDE)]
        for fake in fakes:
            stack.callback(fake.stop)
        play_rooms(book, stages, fakes, range(arguments.seed, arguments.seed + arguments.dags))
    book.play("check of vatra", vatra.check, again=True)


if __name__ == "__main__":
    sys.exit(main("interop", __doc__, OPTIONS, play))
