"""Real servers on loopback that speak with each other over TLS: vatra and Synapse."""

import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import requests
import trustme
import yaml

ADDRESS = "127.0.0.1"
# Seconds that a server has to end when it is asked to.
TO_END = 60


class Authority:
    """Signs certificates of servers; `file` is its own, to be trusted."""

    def __init__(self, folder: Path):
        self.folder, self.ca = folder, trustme.CA()
        self.file = folder / "authority.pem"
        self.ca.cert_pem.write_to_path(self.file)

    def certificate(self, name: str, address: str) -> tuple[Path, Path]:
        """The files of a certificate for an IP address, and of its key."""
        signed = self.ca.issue_cert(address)
        cert_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        signed.cert_chain_pems[0].write_to_path(cert_file)
        signed.private_key_pem.write_to_path(key_file)
        return cert_file, key_file


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((ADDRESS, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Server:
    """A process with a folder of its own; its name is its address, so that no DNS is asked."""

    kind = ""

    def __init__(self, folder: Path, authority: Authority):
        self.folder = folder / self.kind
        self.folder.mkdir()
        self.place()
        self.url = f"http://{self.client_address}"
        self.authority = authority
        self.cert, self.key = authority.certificate(self.kind, self.address)
        self.log = open(self.folder / "output.log", "ab")
        self.process = None
        self.configure()

    def place(self):
        """Where it is: `address` of its certificate, `name`, and `client_address`."""
        self.client_port, self.federation_port = free_ports(2)
        self.address = ADDRESS
        self.name = f"{ADDRESS}:{self.federation_port}"
        self.client_address = f"{ADDRESS}:{self.client_port}"

    def configure(self):
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self):
        self.process = subprocess.Popen(self.command(), cwd=self.folder, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                requests.get(f"{self.url}/_matrix/client/versions", timeout=2)
                return
            except requests.RequestException:
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.kind} ended at start: see {self.log.name}") from None
                time.sleep(0.1)
        raise RuntimeError(f"{self.kind} does not answer")

    def stop(self):
        """Asks it to end; what does not, or not well, is an error. One that has ended before is left alone."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.kind} does not end within {TO_END} s") from None
        if code != 0:
            raise AssertionError(f"{self.kind} ended with code {code}: see {self.log.name}")

    def at_work(self, room: str) -> bool:
        """Whether events of a room that it was told, and has said to have, wait to be judged."""
        return False

    def rejected(self) -> set[str]:
        """The events that it has ever rejected."""
        raise NotImplementedError

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None


class Vatra(Server):
    kind = "vatra"

    def __init__(self, folder: Path, authority: Authority, binary: str):
        self.binary = binary
        self.networks = "allow_loopback = true"
        super().__init__(folder, authority)

    def configure(self):
        (self.folder / "vatra.toml").write_text(
            f'server_name = "{self.name}"\ndata_dir = "{self.folder}/data"\nmedia_dir = "{self.folder}/media"\n'
            f'[client]\nlisten = "{self.client_address}"\n'
            f'[federation]\nenabled = true\nlisten = "{self.name}"\n{self.networks}\n'
            f'tls_cert = "{self.cert}"\ntls_key = "{self.key}"\ntrusted_ca = "{self.authority.file}"\n'
            f'[registration]\nopen = true\nallow_open_on_public_address = true\n[rate_limits]\nenabled = false\n[log]\nfilter = "info,vatra=debug,vatra_domain=debug"\n'
        )

    def command(self):
        return [self.binary, "--config", "vatra.toml"]

    def rejected(self):
        said = Path(self.log.name).read_text(errors="replace")
        return set(re.findall(r'an event is rejected .*id=Some\("([^"]+)"\)', said))

    def check(self):
        """`vatra check` must find nothing."""
        command = [self.binary, "--config", "vatra.toml", "check"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise AssertionError(f"vatra check: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout.strip().splitlines()[-1]


class Synapse(Server):
    kind = "synapse"

    def configure(self):
        often = {"per_second": 100_000, "burst_count": 100_000}
        listener = {"type": "http", "bind_addresses": [ADDRESS]}
        settings = {
            "server_name": self.name,
            "pid_file": str(self.folder / "pid"),
            "listeners": [
                listener | {"port": self.client_port, "tls": False, "resources": [{"names": ["client"]}]},
                listener | {"port": self.federation_port, "tls": True, "resources": [{"names": ["federation", "keys", "media"]}]},
            ],
            "tls_certificate_path": str(self.cert),
            "tls_private_key_path": str(self.key),
            "federation_custom_ca_list": [str(self.authority.file)],
            "federation_ip_range_blacklist": [],
            "ip_range_blacklist": [],
            # One that failed while the other server was down is asked again soon.
            "federation": {"destination_min_retry_interval": "1s", "destination_retry_multiplier": 1, "destination_max_retry_interval": "1s"},
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}},
            "media_store_path": str(self.folder / "media"),
            "signing_key_path": str(self.folder / "signing.key"),
            "macaroon_secret_key": "a secret of tests",
            "form_secret": "another secret of tests",
            "registration_shared_secret": "a third",
            "report_stats": False,
            "suppress_key_server_warning": True,
            "trusted_key_servers": [],
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "allow_public_rooms_over_federation": True,
            "allow_public_rooms_without_auth": True,
            "room_list_publication_rules": [{"action": "allow"}],
            "bcrypt_rounds": 4,
            "rc_message": often,
            "rc_registration": often,
            "rc_login": {"address": often, "account": often, "failed_attempts": often},
            "rc_joins": {"local": often, "remote": often},
            "rc_joins_per_room": often,
            "rc_invites": {"per_room": often, "per_user": often, "per_issuer": often},
            "rc_federation": {"window_size": 1000, "sleep_limit": 100_000, "sleep_delay": 1, "reject_limit": 100_000, "concurrent": 50},
            "rc_key_requests": often,
            "rc_room_creation": often,
        }
        (self.folder / "homeserver.yaml").write_text(yaml.safe_dump(settings))
        # The signing key; it ends by itself.
        subprocess.run([*self.command(), "--generate-keys"], cwd=self.folder, stdout=self.log, stderr=self.log, check=True)

    def ask(self, query: str, *values: str) -> list[tuple]:
        """What its database says."""
        with closing(sqlite3.connect(f"file:{self.folder}/homeserver.db?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()

    def at_work(self, room):
        assert self.process.poll() is None, "synapse has ended"
        return bool(self.ask("SELECT event_id FROM federation_inbound_events_staging WHERE room_id = ?", room))

    def rejected(self):
        return {event for (event,) in self.ask("SELECT event_id FROM rejections")}

    def command(self):
        return [sys.executable, "-m", "synapse.app.homeserver", "--config-path", "homeserver.yaml"]
