"""Who gets credentials from vatra can have a call relayed by coturn, and nobody else can.

run.py PATH_OF_VATRA. Prints 'N passed, N failed' and fails if anything failed.
"""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

VATRA = sys.argv[1]
SECRET = "a secret of both"


def free_port(kind=socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    def __init__(self, command: list, log: Path, ready):
        self.log = log
        self.process = subprocess.Popen(command, stdout=open(log, "ab"), stderr=subprocess.STDOUT)
        for _ in range(600):
            if ready():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.end()
        raise RuntimeError(f"{command[0]} does not start: " + log.read_text()[-500:])

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=20)


def start_coturn(folder: Path) -> Process:
    port = free_port(socket.SOCK_DGRAM)
    here = "127.0.0.1"
    command = [
        "turnserver", "-n", "--listening-ip", here, "--relay-ip", here, "--listening-port", str(port), "--use-auth-secret",
        "--static-auth-secret", SECRET, "--realm", "localhost", "--no-tls", "--no-dtls", "--no-cli", "--allow-loopback-peers",
        "--log-file", "stdout", "--pidfile", str(folder / "coturn.pid"), "--userdb", str(folder / "coturn.db"),
    ]  # fmt: skip

    def answers() -> bool:
        # A binding request, which needs no credentials.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.5)
            try:
                probe.connect((here, port))
                probe.send(bytes.fromhex("000100002112a442") + b"twelve bytes")
                return probe.recv(100)[:2] == b"\x01\x01"
            except OSError:
                return False

    coturn = Process(command, folder / "coturn.log", answers)
    coturn.port = port
    return coturn


def start_vatra(folder: Path, coturn: Process, secret: str, ttl: int) -> Process:
    folder.mkdir()
    url = f"http://127.0.0.1:{free_port()}"
    config = folder / "vatra.toml"
    config.write_text(
        f'server_name = "localhost"\ndata_dir = "{folder}/data"\nmedia_dir = "{folder}/media"\n[client]\nlisten = "{url[7:]}"\n'
        f'[registration]\nopen = true\n[turn]\nuris = ["turn:127.0.0.1:{coturn.port}?transport=udp"]\nshared_secret = "{secret}"\nttl_s = {ttl}\n'
    )

    def ready() -> bool:
        try:
            urllib.request.urlopen(url + "/health/ready", timeout=1).close()
            return True
        except OSError:
            return False

    vatra = Process([VATRA, "--config", str(config)], folder / "vatra.log", ready)
    vatra.url = url
    return vatra


def ask(url: str, body: dict | None = None, token: str = "") -> dict:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def credentials(vatra: Process) -> dict:
    body = {"username": "ana", "password": "correct horse battery", "auth": {"type": "m.login.dummy"}}
    session = ask(f"{vatra.url}/_matrix/client/v3/register", body)
    return ask(f"{vatra.url}/_matrix/client/v3/voip/turnServer", token=session["access_token"])


def relays(coturn: Process, username: str, password: str) -> bool:
    """Whether coturn carries messages from one end to another for who has these."""
    command = ["turnutils_uclient", "-y", "-u", username, "-w", password, "-p", str(coturn.port), "-n", "2", "-m", "1", "-l", "50", "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    refused = "Cannot complete Allocation" in done.stdout + done.stderr
    arrived = "Total lost packets 0 (" in done.stdout + done.stderr
    if (done.returncode == 0) != arrived or arrived == refused:
        raise AssertionError(f"{done.returncode}: {(done.stdout + done.stderr)[-500:]}")
    return arrived


passed, failed = 0, 0


def holds(what: str, it: bool):
    global passed, failed
    passed, failed = passed + it, failed + (not it)
    print(f"{'ok  ' if it else 'FAIL'} {what}", flush=True)


with tempfile.TemporaryDirectory(prefix="vatra-turn-") as folder:
    folder, running = Path(folder), []
    try:
        coturn = start_coturn(folder)
        running.append(coturn)
        for name, secret, ttl in (("vatra", SECRET, 600), ("other", "another secret", 600), ("brief", SECRET, 1)):
            running.append(start_vatra(folder / name, coturn, secret, ttl))
        _, vatra, other, brief = running
        given = credentials(vatra)
        username, password = given["username"], given["password"]
        holds("the answer says where, and for how long", (given["uris"], given["ttl"]) == ([f"turn:127.0.0.1:{coturn.port}?transport=udp"], 600))
        holds("who has the credentials is relayed", relays(coturn, username, password))
        holds("another password is refused", not relays(coturn, username, password[::-1]))
        later = str(int(username.split(":")[0]) + 600) + username[username.index(":") :]
        holds("a name that says a later time is refused", not relays(coturn, later, password))
        stranger = credentials(other)
        holds("what another secret has made is refused", not relays(coturn, stranger["username"], stranger["password"]))
        short = credentials(brief)
        time.sleep(2.5)
        holds("what is too old is refused", not relays(coturn, short["username"], short["password"]))
    finally:
        for process in reversed(running):
            process.end()

print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed != 6)
