"""vatra keeps media with a real S3 service (moto, which checks signatures and permissions here), over TLS: files are moved there and back,
a move goes on where it was interrupted, and a service that is away or refuses is told.

s3.py PATH_OF_VATRA. Prints 'N passed, N failed' and fails if anything failed.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import boto3
import trustme
from botocore.config import Config

from memory import Watch

VATRA = sys.argv[1]
PASSWORD = "correct horse battery"
LARGE = os.urandom(20_000_001)
#: How much more memory the server may take while 100 MB pass.
MORE = 20_000_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """A bucket, and a key that may use it and nothing else."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.url = f"https://localhost:{self.port}"
        authority = trustme.CA()
        self.trusted = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.trusted))
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(str(folder / "s3.key"))
        for place, pem in enumerate(certificate.cert_chain_pems):
            pem.write_to_path(str(folder / "s3.pem"), append=place > 0)
        self.start()

    def start(self):
        command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(self.port), "-s"]
        command += ["-c", str(self.folder / "s3.pem"), "-k", str(self.folder / "s3.key")]
        log = open(self.folder / "s3.log", "ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(600):
            try:
                self.act("moto-api/reset", b"")
                break
            except OSError:
                assert self.process.poll() is None, (self.folder / "s3.log").read_text()[-500:]
                time.sleep(0.05)
        self.owner = self.client("s3", ("owner", "owner"))
        self.owner.create_bucket(Bucket="media")
        users = self.client("iam", ("owner", "owner"))
        users.create_user(UserName="vatra")
        actions = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket", "s3:AbortMultipartUpload"]
        rule = {"Effect": "Allow", "Action": actions, "Resource": ["arn:aws:s3:::media", "arn:aws:s3:::media/*"]}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
        users.put_user_policy(UserName="vatra", PolicyName="media", PolicyDocument=policy)
        key = users.create_access_key(UserName="vatra")["AccessKey"]
        self.key = (key["AccessKeyId"], key["SecretAccessKey"])
        rule = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        users.create_user(UserName="owner")
        policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
        users.put_user_policy(UserName="owner", PolicyName="all", PolicyDocument=policy)
        key = users.create_access_key(UserName="owner")["AccessKey"]
        self.owner = self.client("s3", (key["AccessKeyId"], key["SecretAccessKey"]))
        # From now on signatures and permissions are checked.
        self.act("moto-api/reset-auth", b"0")

    def act(self, path: str, body: bytes):
        context = ssl.create_default_context(cafile=self.trusted)
        request = urllib.request.Request(f"{self.url}/{path}", body, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request, timeout=5, context=context).close()

    def client(self, name: str, key: tuple):
        style = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
        return boto3.client(
            name, endpoint_url=self.url, region_name="us-east-1", verify=str(self.trusted), config=style,
            aws_access_key_id=key[0], aws_secret_access_key=key[1],
        )

    def stop(self):
        self.process.kill()
        self.process.wait()

    def objects(self, prefix: str = "") -> dict:
        pages = self.owner.get_paginator("list_objects_v2").paginate(Bucket="media", Prefix=prefix)
        return {it["Key"]: it["Size"] for page in pages for it in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        return self.owner.get_object(Bucket="media", Key=key)["Body"].read()


class Server:
    """vatra and its folder."""

    def __init__(self, folder: Path, service: Service):
        self.folder, self.service, self.port = folder, service, free_port()
        self.url, self.settings, self.process = f"http://127.0.0.1:{self.port}", {"backend": "disk"}, None
        folder.mkdir(exist_ok=True)

    def write_settings(self, **changed):
        self.settings |= changed
        lines = [f'data_dir = "{self.folder}/data"', f'media_dir = "{self.folder}/media"', "[registration]", "open = true"]
        lines += ["[client]", f'listen = "127.0.0.1:{self.port}"', "[rate_limits]", "enabled = false"]
        lines += ["[media]", "max_upload_bytes = 100000000", f'backend = "{self.settings["backend"]}"', "[media.s3]", f'endpoint = "{self.service.url}"']
        lines += [f'bucket = "{self.settings.get("bucket", "media")}"', f'prefix = "{self.settings.get("prefix", "")}"']
        lines += [f'access_key_id = "{self.service.key[0]}"', f'trusted_ca = "{self.service.trusted}"']
        (self.folder / "vatra.toml").write_text("\n".join(lines) + "\n")

    def environment(self) -> dict:
        secret = self.settings.get("secret", self.service.key[1])
        return os.environ | {"VATRA__MEDIA__S3__SECRET_ACCESS_KEY": secret}

    def start(self, **changed):
        self.write_settings(**changed)
        command, log = [VATRA, "--config", str(self.folder / "vatra.toml")], open(self.folder / "vatra.log", "ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment())
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/health/live", timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise AssertionError("it ended: " + (self.folder / "vatra.log").read_text()[-700:]) from None
                time.sleep(0.05)
        raise AssertionError("it does not answer")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=20) == 0

    def run(self, *arguments: str, fails: bool = False) -> str:
        command = [VATRA, "--config", str(self.folder / "vatra.toml"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=self.environment())
        assert (done.returncode != 0) == fails, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def ask(self, method: str, path: str, body: bytes | None = None, **headers):
        """Gives status, headers and body, also of refusals."""
        if getattr(self, "token", None):
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.headers, refusal.read()

    def register(self):
        body = {"username": "ana", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        status, _, answer = self.ask("POST", "/_matrix/client/v3/register", json.dumps(body).encode())
        assert status == 200, answer
        self.token = json.loads(answer)["access_token"]

    def upload(self, content: bytes, kind: str = "application/octet-stream") -> str:
        status, _, answer = self.ask("POST", "/_matrix/media/v3/upload", content, **{"Content-Type": kind})
        assert status == 200, answer
        return json.loads(answer)["content_uri"].removeprefix("mxc://")

    def download(self, media: str, **headers):
        return self.ask("GET", f"/_matrix/client/v1/media/download/{media}", **headers)

    def reads(self, files: dict):
        for media, content in files.items():
            status, _, body = self.download(media)
            assert status == 200 and body == content, (status, len(body), len(content))


def named(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"blobs/{digest[:2]}/{digest[2:4]}/{digest[4:]}"


def picture() -> bytes:
    """A PNG of one colour, 640 by 480."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x10\x60\xc0" * 640) * 480)
    head = struct.pack(">IIBBBBB", 640, 480, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def files_are_moved_there_while_the_server_runs(service: Service, server: Server, files: dict):
    server.start()
    server.register()
    for content in (LARGE, b"", b"salut", picture(), *(f"file {number}".encode() for number in range(40))):
        files[server.upload(content)] = content
    told = server.run("media", "move", "s3")
    assert f"{len(files)} files with 20.0 MB were copied" in told, told
    assert "100 %" in told, told
    objects = service.objects()
    assert objects == {named(content): len(content) for content in files.values()}, objects
    assert hashlib.sha256(service.read(named(LARGE))).digest() == hashlib.sha256(LARGE).digest()
    assert "0 files with 0 bytes were copied" in server.run("media", "move", "s3")
    assert "are kept there already" in server.run("media", "move", "disk", fails=True)


def a_move_goes_on_where_it_was_interrupted_and_mends_what_is_damaged_there(service: Service, server: Server, files: dict):
    service.owner.delete_object(Bucket="media", Key=named(b"file 1"))
    service.owner.delete_object(Bucket="media", Key=named(LARGE))
    service.owner.put_object(Bucket="media", Key=named(b"file 2"), Body=b"file")
    service.owner.put_object(Bucket="media", Key=named(b"file 3"), Body=b"flip 3")
    command = [VATRA, "--config", str(server.folder / "vatra.toml"), "media", "move", "s3"]
    cut = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=server.environment())
    cut.stderr.read(1)
    cut.kill()
    cut.wait()
    server.run("media", "move", "s3")
    assert service.read(named(LARGE)) == LARGE
    assert service.read(named(b"file 1")) == b"file 1" and service.read(named(b"file 2")) == b"file 2"
    assert service.read(named(b"file 3")) == b"flip 3", "it has the right length, and nobody looked closer"
    assert "1 files with 6 bytes were copied" in server.run("media", "move", "s3", "--again")
    assert service.read(named(b"file 3")) == b"file 3"
    # What is damaged where it is goes nowhere, and is named; the rest goes.
    damaged = server.folder / "media" / named(b"file 4")
    damaged.write_bytes(b"flop 4")
    service.owner.delete_object(Bucket="media", Key=named(b"file 4"))
    service.owner.delete_object(Bucket="media", Key=named(b"file 5"))
    told = server.run("media", "move", "s3", fails=True)
    assert "1 files with 6 bytes were copied" in told and named(b"file 4")[12:] in told, told
    damaged.write_bytes(b"file 4")
    server.run("media", "move", "s3")


def files_are_read_from_there_in_parts_too_and_written_there(service: Service, server: Server, files: dict):
    late = b"came after the move"
    files[server.upload(late)] = late
    server.stop()
    assert "1 files with 19 bytes were copied" in server.run("media", "move", "s3")
    shutil.rmtree(server.folder / "media")
    server.start(backend="s3")
    server.reads(files)
    large = next(media for media, content in files.items() if content is LARGE)
    status, headers, body = server.download(large, Range="bytes=9000000-17000000")
    assert (status, body == LARGE[9_000_000:17_000_001]) == (206, True), status
    assert headers["Content-Range"] == f"bytes 9000000-17000000/{len(LARGE)}", headers
    status, _, body = server.download(large, Range="bytes=-5")
    assert (status, body) == (206, LARGE[-5:])
    assert server.download(large, Range=f"bytes={len(LARGE)}-")[0] == 416
    shown = next(media for media, content in files.items() if content[:4] == b"\x89PNG")
    status, headers, body = server.ask("GET", f"/_matrix/client/v1/media/thumbnail/{shown}?width=96&height=96&method=crop")
    assert (status, headers["Content-Type"]) == (200, "image/png") and named(body) in service.objects()
    new = os.urandom(9_000_000)
    files[server.upload(new)] = new
    assert service.read(named(new)) == new
    server.reads(files)
    left = [it.name for it in server.folder.glob("media/**/*") if it.is_file()]
    assert left == [], left
    assert ": 0 problems" in server.run("check")


def a_hundred_megabytes_pass_without_being_in_memory(service: Service, server: Server, files: dict):
    content = os.urandom(1_000_000) * 100
    with Watch(server.process.pid) as up:
        media = server.upload(content)
    with Watch(server.process.pid) as down:
        assert server.download(media)[2] == content
    told = f"up: {up.more() / 1e6:.1f} MB more, down: {down.more() / 1e6:.1f} MB more"
    print(f"s3: {told}")
    assert max(up.more(), down.more()) < MORE, told


def the_check_names_what_is_wrong_there(service: Service, server: Server, files: dict):
    service.owner.delete_object(Bucket="media", Key=named(b"salut"))
    service.owner.put_object(Bucket="media", Key=named(b"file 7"), Body=b"flip 7")
    service.owner.put_object(Bucket="media", Key=named(b"nobody's"), Body=b"nobody's")
    service.owner.put_object(Bucket="media", Key="blobs/readme.txt", Body=b"?")
    told = server.run("check", fails=True)
    for problem in ("the file is missing", "does not match its hash", "no row names the file", "blobs/readme.txt: not a blob", ": 4 problems"):
        assert problem in told, (problem, told)
    lost = next(media for media, content in files.items() if content == b"salut")
    assert server.download(lost)[0] >= 500
    for content in (b"salut", b"file 7"):
        server.upload(content)
    for key in (named(b"nobody's"), "blobs/readme.txt"):
        service.owner.delete_object(Bucket="media", Key=key)
    assert ": 0 problems" in server.run("check")
    server.reads(files)


def a_backup_holds_the_files_and_goes_back_to_a_bucket(service: Service, server: Server, files: dict):
    place = server.folder / "backup"
    server.run("backup", str(place))
    assert (place / "media" / named(LARGE)).read_bytes() == LARGE
    other = Server(server.folder / "restored", service)
    other.write_settings(backend="s3", prefix="second/place")
    other.run("restore", str(place))
    assert service.objects("second/place/").keys() == {f"second/place/{name}" for name in service.objects("blobs/")}
    other.start()
    other.token = server.token
    other.reads(files)
    assert ": 0 problems" in other.run("check")
    other.stop()


def a_service_that_is_away_is_told_and_comes_back(service: Service, server: Server, files: dict):
    service.stop()
    status, _, answer = server.ask("POST", "/_matrix/media/v3/upload", b"nowhere to go")
    assert status >= 500, answer
    status, _, health = server.ask("GET", "/health/ready")
    assert status == 503 and b"media" in health, health
    body = json.dumps({"name": "still here"}).encode()
    assert server.ask("POST", "/_matrix/client/v3/createRoom", body)[0] == 200
    server.stop()
    # It starts without: people write to each other meanwhile.
    server.start()
    assert server.ask("POST", "/_matrix/client/v3/createRoom", body)[0] == 200
    assert server.download(next(iter(files)))[0] >= 500
    server.stop()
    # It comes back empty, since this one keeps nothing, and the backup fills it.
    service.start()
    shutil.rmtree(server.folder / "data")
    server.write_settings()
    server.run("restore", str(server.folder / "backup"))
    server.start()
    server.reads(files)
    assert server.ask("GET", "/health/ready")[0] == 200


def settings_that_the_service_refuses_are_named_at_the_start(service: Service, server: Server, files: dict):
    server.stop()
    for wrong in ({"secret": "not the secret"}, {"bucket": "nobodys"}):
        right = {key: server.settings.get(key) for key in wrong}
        server.write_settings(**wrong)
        done = server.run(fails=True)
        assert "vatra.toml: media.s3.bucket: " in done, done
        assert "not the secret" not in done, done
        for key, value in right.items():
            server.settings.pop(key) if value is None else server.settings.update({key: value})
    server.write_settings()


def files_are_moved_back(service: Service, server: Server, files: dict):
    server.start()
    assert "files with" in server.run("media", "move", "disk")
    server.stop()
    server.start(backend="disk")
    service.stop()
    server.reads(files)
    assert ": 0 problems" in server.run("check")
    server.stop()


CASES = (
    files_are_moved_there_while_the_server_runs,
    a_move_goes_on_where_it_was_interrupted_and_mends_what_is_damaged_there,
    files_are_read_from_there_in_parts_too_and_written_there,
    a_hundred_megabytes_pass_without_being_in_memory,
    the_check_names_what_is_wrong_there,
    a_backup_holds_the_files_and_goes_back_to_a_bucket,
    a_service_that_is_away_is_told_and_comes_back,
    settings_that_the_service_refuses_are_named_at_the_start,
    files_are_moved_back,
)


def main() -> int:
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        server, files = Server(Path(folder) / "vatra", service), {}
        for case in CASES:
            try:
                began = time.time()
                case(service, server, files)
                passed += 1
                print(f"ok s3: {case.__name__} ({time.time() - began:.1f} s)")
            except Exception:
                # Each begins where the one before it ended.
                failed = len(CASES) - passed
                print(f"FAILED s3: {case.__name__}, and those after it\n{traceback.format_exc()}")
                print((server.folder / "vatra.log").read_text()[-3000:] + (Path(folder) / "s3.log").read_text()[-2000:])
                break
        for process in (server.process, service.process):
            if process and process.poll() is None:
                process.kill()
        log = (server.folder / "vatra.log").read_text()
        if any(secret in log for secret in (service.key[1], "Signature=")):
            failed += 1
            print("FAILED s3: a secret is in the log")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
