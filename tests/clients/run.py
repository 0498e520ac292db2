"""Two stock clients use a real vatra as people would, before and after a restart and a kill.

run.py PATH_OF_VATRA FOLDER_WITH_NODE_MODULES. Prints 'N passed, N failed' and fails if anything failed.
"""

import asyncio
import json
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
import zlib
from pathlib import Path

from nio_job import NioJob
from nio_secret import NioSecret
from recorder import Recorder, nothing_leaked, places

VATRA, JS = sys.argv[1], Path(sys.argv[2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def png(width: int, height: int) -> bytes:
    """A red picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Server:
    """The binary on RocksDB, with a folder of its own."""

    def __init__(self, folder: Path):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "vatra.toml"
        self.log = open(folder / "vatra.log", "ab")
        self.config.write_text(
            f'server_name = "localhost"\ndata_dir = "{folder}/data"\nmedia_dir = "{folder}/media"\n'
            f'[client]\nlisten = "127.0.0.1:{self.port}"\n[registration]\nopen = true\n[log]\nfilter = "debug"\n'
        )
        self.process = None

    def start(self):
        self.process = subprocess.Popen([VATRA, "--config", str(self.config)], stdout=self.log, stderr=self.log)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/_matrix/client/versions", timeout=1):
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


async def js_secret(url: str, facts: Path):
    """The encrypted conversation with matrix-js-sdk; it runs beside the relay of this process."""
    process = await asyncio.create_subprocess_exec(
        "node", "secret.mjs", url, str(facts), cwd=JS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), 120)
    except asyncio.TimeoutError:
        process.kill()
        raise
    if process.returncode != 0:
        raise RuntimeError(printed.decode(errors="replace")[-4000:])


def js(url: str, step: str, state: Path, picture: Path):
    """The same job with matrix-js-sdk, which keeps what it must remember in a file."""
    command = ["node", "job.mjs", url, step, str(state), str(picture)]
    done = subprocess.run(command, cwd=JS, timeout=120, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"{step}: {(done.stdout + done.stderr)[-4000:]}")


async def main() -> int:
    outcomes = []

    async def check(name, work):
        begin = time.monotonic()
        try:
            result = work()
            if asyncio.iscoroutine(result):
                await result
            outcomes.append(True)
            print(f"ok {time.monotonic() - begin:5.1f} s  {name}", flush=True)
        except Exception:
            outcomes.append(False)
            print(f"FAILED      {name}", flush=True)
            traceback.print_exc()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = folder / "js.json"
        picture = folder / "fire.png"
        picture.write_bytes(png(900, 700))
        server = Server(folder)
        server.start()
        job = NioJob(server.url, picture)
        recorder, facts = Recorder(server.url), folder / "facts.json"
        await recorder.start(free_port())
        secret = NioSecret(recorder.url, folder)
        try:
            await check("nio: register, open a room, invite, join", job.meet)
            await check("nio: chat", job.chat)
            await check("nio: share a picture", job.picture)
            await check("nio: see each other type", job.typing)
            await check("nio: read back the history", job.history)
            await check("js-sdk: the whole job", lambda: js(server.url, "meet", state, picture))
            await check("nio, encrypted: five people with keys in an encrypted room", secret.meet)
            await check("nio, encrypted: each is heard by all, and a pair by nobody else", secret.talk)
            await check("nio, encrypted: what was said while one was away", secret.offline)
            await check("nio, encrypted: a second device comes and goes", secret.new_device)
            await check("js-sdk, encrypted: talk, verify, a new device, the backup", lambda: js_secret(recorder.url, facts))
            # Before the store is packed: what it holds is to be read as it was written.
            def closed():
                found = json.loads(facts.read_text())
                secrets, public = secret.secrets() + found["secrets"], secret.public() + found["public"]
                nothing_leaked(places([recorder], folder), secrets, public, secret.said + found["said"])

            await check("no secret and no plaintext is in a request, the store or the log", closed)
            server.stop()
            server.start()
            await check("nio, encrypted: all of it after a restart", secret.talk)
            await check("nio: all of it after a restart", job.again)
            await check("js-sdk: all of it after a restart", lambda: js(server.url, "again", state, picture))
            await check("nio: many send while the server is killed", lambda: job.flood(server.kill))
            server.start()
            await check("nio: every message acknowledged before the kill is there", job.history)
            await check("nio: all of it after a kill", job.again)
            await check("js-sdk: all of it after a kill", lambda: js(server.url, "again", state, picture))
            await check("nio, encrypted: all of it after a kill", secret.talk)
            await check("nio, encrypted: a new device after a kill", secret.new_device)

            await check("the server stops cleanly", server.stop)
        finally:
            await job.close()
            await secret.close()
            await recorder.close()
            if server.process.poll() is None:
                server.kill()
        if not all(outcomes):
            log = (folder / "vatra.log").read_bytes()[-4000:]
            sys.stderr.write(log.decode(errors="replace"))
    failed = outcomes.count(False)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # by way of `finally`: no server is left
    sys.exit(asyncio.run(main()))
