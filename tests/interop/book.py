"""What run.py and partition.py share: their arguments, what was good already, and the end of it all."""

import argparse
import fcntl
import hashlib
import json
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent


class Book:
    """What was good already, and the log of this run. Several threads may play at a time."""

    def __init__(self, folder: Path, binary: Path, name: str, again: bool):
        """What is written down is good for this binary and these scripts; with `again` it is played all the same."""
        sum = hashlib.sha256(binary.read_bytes())
        for script in sorted([*HERE.glob("*.py"), HERE / "requirements.txt"]):
            sum.update(script.read_bytes())
        self.hash = sum.hexdigest()[:16]
        self.file = folder / f"{name}.json"
        self.log = open(folder / f"{name}.log", "a", buffering=1)
        known = json.loads(self.file.read_text()) if self.file.exists() and not again else {}
        self.done = set(known.get(self.hash, []))
        self.lock = threading.Lock()
        self.passed = self.failed = 0

    def tell(self, line: str):
        print(line, flush=True)
        self.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def start(self, server, stack: ExitStack):
        """Starts a server, whose end is checked when the stack is unwound."""
        stack.callback(self.play, f"end of {server.kind}", server.stop, again=True)
        server.start()

    def play(self, name: str, work, again: bool = False):
        """Plays something, unless it was good; with `again` also then."""
        if name in self.done and not again:
            with self.lock:
                self.passed += 1
                self.tell(f"ok   before  {name}")
            return
        begin = time.monotonic()
        try:
            told = work()
        except Exception:
            with self.lock:
                self.failed += 1
                self.tell(f"FAILED       {name}\n{traceback.format_exc()}")
            return
        with self.lock:
            self.passed += 1
            self.done.add(name)
            self.file.write_text(json.dumps({self.hash: sorted(self.done)}))
            self.tell(f"ok {time.monotonic() - begin:6.1f} s  {name}" + (f": {told}" if told else ""))


def main(name: str, about: str, options: dict[str, dict], play) -> int:
    """Plays, given the arguments, the book, an empty folder, and a stack of what is to be done at the end."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vatra", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held", action="store_true", help="as a part of `make test`: all is played, in a folder apart")
    for option, how in options.items():
        parser.add_argument(option, **how)
    arguments = parser.parse_args()
    arguments.vatra = arguments.vatra.absolute()
    folder = arguments.folder / "held" if arguments.held else arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    # Another process that plays in this folder ends first.
    lock = open(folder / f"{name}.lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    work = folder / f"{name}-servers"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    book = Book(folder, arguments.vatra, name, arguments.held)

    def end(*_):
        """Whoever ends this at its limit of time gets rid of the servers too."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
    with ExitStack() as stack:
        play(arguments, book, work, stack)
    book.tell(f"{book.passed} passed, {book.failed} failed")
    return 1 if book.failed else 0
