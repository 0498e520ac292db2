"""vatra and Synapse live in the same rooms: run.py PATH_OF_VATRA FOLDER [--only SCENE]...

Plays every scene in both directions, then again what must survive a restart and a kill of either server. What was good is
written down in FOLDER/interop.json, by the binary's hash, so that a run that was interrupted goes on. Prints 'N passed, N failed'.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
import traceback
from pathlib import Path

import dags
from authority import Authority
from fake import FakeServer
from people import eventually
from scenes import SCENES, Stage, agree
from servers import Synapse, Vatra


class Book:
    """What was good already, and the log of this run."""

    def __init__(self, folder: Path, binary: Path, name: str):
        self.hash = hashlib.sha256(binary.read_bytes()).hexdigest()[:16]
        self.file = folder / f"{name}.json"
        self.log = open(folder / f"{name}.log", "a", buffering=1)
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.done = set(known.get(self.hash, []))
        self.passed = self.failed = 0

    def tell(self, line: str):
        print(line, flush=True)
        self.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def play(self, name: str, work, again: bool = True):
        """Plays something, unless it was good and need not be played again."""
        if name in self.done and not again:
            self.passed += 1
            self.tell(f"ok   before  {name}")
            return
        begin = time.monotonic()
        try:
            told = work()
        except Exception:
            self.failed += 1
            self.tell(f"FAILED       {name}\n{traceback.format_exc()}")
            return
        self.passed += 1
        self.done.add(name)
        self.file.write_text(json.dumps({self.hash: sorted(self.done)}))
        self.tell(f"ok {time.monotonic() - begin:6.1f} s  {name}" + (f": {told}" if told else ""))


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


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("vatra", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--dags", type=int, default=300, help="how many random rooms; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of the first random room")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    book = Book(arguments.folder, arguments.vatra, "interop")
    work = arguments.folder / "servers"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    authority = Authority(work)
    vatra, synapse = Vatra(work, authority, str(arguments.vatra.absolute())), Synapse(work, authority)
    wanted = [scene for scene in SCENES if not arguments.only or scene.__name__ in arguments.only]
    try:
        vatra.start()
        synapse.start()
        stages = [Stage(vatra, synapse), Stage(synapse, vatra)]
        for scene in wanted:
            for stage in stages:
                here = stage.servers["here"].kind
                book.play(f"{scene.__name__}, room of {here}", lambda: scene(stage), again=False)
        ends = {"restart": lambda server: server.stop(), "kill": lambda server: server.kill()}
        for what, end in ends.items():
            for server in (vatra, synapse):
                for stage in stages:
                    name = f"{what} of {server.kind}, room of {stage.servers['here'].kind}"
                    if not arguments.only or what in arguments.only:
                        book.play(name, lambda: survives(stage, server, end), again=False)
        if arguments.dags:
            fake = FakeServer(authority)
            people = [stage.person("here") for stage in stages]
            for seed in range(arguments.seed, arguments.seed + arguments.dags):
                book.play(f"random room {seed}", lambda: dags.play(fake, people, seed), again=False)
            fake.stop()
        book.play("vatra check", vatra.check)
    finally:
        for server in (vatra, synapse):
            server.stop()
    book.tell(f"{book.passed} passed, {book.failed} failed")
    return 1 if book.failed else 0


if __name__ == "__main__":
    sys.exit(main())
