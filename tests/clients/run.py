"""Two stock clients use a real vatra as people would, before and after a restart and a kill.

run.py PATH_OF_VATRA FOLDER_WITH_NODE_MODULES. Prints 'N passed, N failed' and fails if anything failed.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

from nio_job import NioJob

VATRA, JS = sys.argv[1], Path(sys.argv[2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """The binary on RocksDB, with a folder of its own."""

    def __init__(self, folder: Path):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "vatra.toml"
        self.log = open(folder / "vatra.log", "ab")
        self.config.write_text(
            f'server_name = "localhost"\ndata_dir = "{folder}/data"\nmedia_dir = "{folder}/media"\n'
            f'[client]\nlisten = "127.0.0.1:{self.port}"\n[registration]\nopen = true\n'
        )
        self.process = None

    def start(self):
        self.process = subprocess.Popen([VATRA, "--config", str(self.config)], stdout=self.log, stderr=self.log)
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"{self.url}/health/ready", timeout=1):
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("vatra ended at start")
                time.sleep(0.05)
        raise RuntimeError("vatra does not answer")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=20) != 0:
            raise RuntimeError(f"vatra ended with {self.process.returncode}")

    def kill(self):
        self.process.kill()
        self.process.wait()


def js(url: str, step: str, state: Path):
    """The same job with matrix-js-sdk, which keeps what it must remember in a file."""
    command = ["node", "job.mjs", url, step, str(state)]
    subprocess.run(command, cwd=JS, check=True, timeout=120)


async def main() -> int:
    outcomes = []

    async def check(name, work):
        try:
            result = work()
            if asyncio.iscoroutine(result):
                await result
            outcomes.append(True)
            print(f"ok      {name}", flush=True)
        except Exception:
            outcomes.append(False)
            print(f"FAILED  {name}", flush=True)
            traceback.print_exc()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = folder / "js.json"
        server = Server(folder)
        server.start()
        job = NioJob(server.url, folder)
        try:
            await check("nio: register, open a room, invite, join", job.meet)
            await check("nio: chat", job.chat)
            await check("nio: share a picture", job.picture)
            await check("nio: see each other type", job.typing)
            await check("nio: read back the history", job.history)
            await check("js-sdk: the whole job", lambda: js(server.url, "meet", state))
            server.stop()
            server.start()
            await check("nio: history and chat after a restart", job.again)
            await check("js-sdk: history and chat after a restart", lambda: js(server.url, "again", state))
            await check("nio: every acknowledged message survives a kill", lambda: job.flood(server.kill))
            server.start()
            await check("nio: history and chat after a kill", job.again)
            await check("nio: nothing acknowledged is lost", job.all_there)
            await check("js-sdk: history and chat after a kill", lambda: js(server.url, "again", state))
            await check("the server stops cleanly", server.stop)
        finally:
            await job.close()
            if server.process.poll() is None:
                server.kill()
        if not all(outcomes):
            log = (folder / "vatra.log").read_bytes()[-4000:]
            sys.stderr.write(log.decode(errors="replace"))
    failed = outcomes.count(False)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    sys.exit(asyncio.run(main()))
