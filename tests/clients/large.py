"""Large files: 100 MB pass through vatra both ways without being in its memory, and a browser plays a video that it asks for in parts.

large.py PATH_OF_VATRA FOLDER_OF_THE_JS. Prints 'N passed, N failed' and fails if anything failed. The video needs chromium.
"""

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

import av

from memory import Watch

VATRA, JS = sys.argv[1], Path(sys.argv[2])
LARGE = 100_000_000
#: How much more memory than before the server may take meanwhile, in bytes.
MORE = 20_000_000
SECONDS = 20


class LeftOut(Exception):
    """It cannot be run here."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, folder: Path):
        self.port = free_port()
        config, self.log = folder / "vatra.toml", folder / "vatra.log"
        config.write_text(
            f'data_dir = "{folder}/data"\nmedia_dir = "{folder}/media"\n[client]\nlisten = "127.0.0.1:{self.port}"\n'
            f"[registration]\nopen = true\n[rate_limits]\nenabled = false\n[media]\nmax_upload_bytes = {LARGE}\n"
        )
        log = open(self.log, "ab")
        self.process = subprocess.Popen([VATRA, "--config", str(config)], stdout=log, stderr=log)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=1).close()
                break
            except OSError:
                assert self.process.poll() is None, self.log.read_text()[-500:]
                time.sleep(0.05)
        body = {"username": "ana", "password": "correct horse battery", "auth": {"type": "m.login.dummy"}}
        _, answer = self.ask("POST", "/_matrix/client/v3/register", json.dumps(body).encode())
        self.token = json.loads(answer)["access_token"]

    def ask(self, method: str, path: str, body=None, take=None, **headers):
        """The body may be bytes, or pieces with their length in the headers; the answer is given, or its pieces are taken."""
        if hasattr(self, "token"):
            headers["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        if take is None:
            content = answer.read()
        else:
            content = b""
            while piece := answer.read(1 << 20):
                take(piece)
        connection.close()
        assert answer.status == 200, (answer.status, content)
        return answer, content

    def upload(self, body, length: int, kind: str) -> str:
        headers = {"Content-Type": kind, "Content-Length": str(length)}
        _, answer = self.ask("POST", "/_matrix/media/v3/upload", body, **headers)
        return json.loads(answer)["content_uri"].removeprefix("mxc://")


def a_hundred_megabytes_pass_without_being_in_memory(server: Server, folder: Path):
    piece = os.urandom(1_000_000)
    pieces = LARGE // len(piece)
    expected = hashlib.sha256()
    for _ in range(pieces):
        expected.update(piece)
    # The first request of each kind has parts of the program to read.
    server.ask("GET", f"/_matrix/client/v1/media/download/{server.upload(b'small', 5, 'text/plain')}")
    with Watch(server.process.pid) as up:
        began = time.time()
        media = server.upload((piece for _ in range(pieces)), LARGE, "application/octet-stream")
        up_took = time.time() - began
    got = hashlib.sha256()
    with Watch(server.process.pid) as down:
        began = time.time()
        server.ask("GET", f"/_matrix/client/v1/media/download/{media}", take=got.update)
        down_took = time.time() - began
    assert got.digest() == expected.digest()
    told = f"up: {up.more() / 1e6:.1f} MB more in {up_took:.1f} s, down: {down.more() / 1e6:.1f} MB more in {down_took:.1f} s"
    print(f"large: {told}")
    assert max(up.more(), down.more()) < MORE, told


def make_video(place: Path):
    """Noise, which takes some 60 MB, so that no browser reads it all ahead; what it must know first stands at the end of the file."""
    video = av.open(str(place), "w", format="mp4")
    stream = video.add_stream("libx264", rate=25, options={"preset": "ultrafast", "qp": "14", "tune": "zerolatency", "g": "50"})
    stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
    for number in range(SECONDS * 25):
        frame = av.VideoFrame(320, 240, "yuv420p")
        for plane in frame.planes:
            plane.update(os.urandom(plane.buffer_size))
        frame.pts = number
        video.mux(stream.encode(frame))
    video.mux(stream.encode())
    video.close()


def a_browser_plays_a_video_and_seeks_in_it(server: Server, folder: Path):
    place = folder / "video.mp4"
    make_video(place)
    size = place.stat().st_size
    with open(place, "rb") as file:
        media = server.upload(file, size, "video/mp4")
    url = f"http://127.0.0.1:{server.port}/_matrix/client/v1/media/download/{media}?access_token={server.token}"
    done = subprocess.run(["node", str(JS / "video.mjs"), url, str(SECONDS)], capture_output=True, text=True, timeout=120)
    if done.returncode == 3:
        raise LeftOut("there is no chromium")
    assert done.returncode == 0, done.stderr
    played = json.loads(done.stdout)
    assert (played["width"], played["height"], round(played["length"])) == (320, 240, SECONDS), played
    assert played["began"] >= 0.5 and played["ended"] > SECONDS - 0.5, played
    answers = played["answers"]
    assert answers and all(it["status"] == 206 and it["range"].endswith(f"/{size}") for it in answers), answers
    starts = [int(re.match(r"bytes (\d+)-", it["range"]).group(1)) for it in answers]
    print(f"large: a video of {size / 1e6:.0f} MB was asked for from {starts}")
    assert min(starts) == 0 and max(starts) > size / 2, starts


def main() -> int:
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        for case in (a_hundred_megabytes_pass_without_being_in_memory, a_browser_plays_a_video_and_seeks_in_it):
            try:
                case(server, Path(folder))
                passed += 1
                print(f"ok large: {case.__name__}")
            except LeftOut as why:
                print(f"NOT RUN large: {case.__name__}: {why}")
            except Exception:
                failed += 1
                print(f"FAILED large: {case.__name__}\n{traceback.format_exc()}\n{server.log.read_text()[-2000:]}")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=20)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
