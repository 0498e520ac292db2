"""How much memory a process takes while something is done."""

import re
import threading
from pathlib import Path


class Watch:
    """With it, the most that is resident meanwhile is found, by looking every five milliseconds."""

    def __init__(self, pid: int):
        self.status, self.over = Path(f"/proc/{pid}/status"), threading.Event()
        self.before = self.most = self.resident()
        self.thread = threading.Thread(target=self.look)

    def resident(self) -> int:
        return int(re.search(r"VmRSS:\s+(\d+) kB", self.status.read_text()).group(1)) * 1024

    def look(self):
        while not self.over.wait(0.005):
            self.most = max(self.most, self.resident())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def more(self) -> int:
        """By how many bytes it was more than before."""
        return self.most - self.before
