"""A real mail server (aiosmtpd) takes vatra's letters: in the clear, by STARTTLS and over TLS, with a login; across kills, each letter arrives.

mail.py PATH_OF_VATRA. Prints 'N passed, N failed' and fails if anything failed.
"""

import email
import email.policy
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

VATRA = sys.argv[1]
NAME, PASSWORD = "hearth", "a secret of the mail server"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mailbox:
    """Keeps every letter; may do something before it answers."""

    def __init__(self):
        self.letters, self.before_answer = [], None

    async def handle_DATA(self, server, session, envelope):
        letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.letters.append((envelope.rcpt_tos, letter, session.ssl is not None, session.authenticated))
        if self.before_answer:
            self.before_answer()
        return "250 taken"

    def wait(self, number: int, seconds: float = 60):
        end = time.time() + seconds
        while len(self.letters) < number:
            if time.time() > end:
                raise AssertionError(f"{len(self.letters)} letters, not {number}")
            time.sleep(0.02)
        return self.letters[number - 1]


class MailServer:
    def __init__(self, folder: Path, tls: str):
        self.tls, self.port, self.mailbox = tls, free_port(), Mailbox()
        authority = trustme.CA()
        self.trusted = folder / f"ca-{tls}.pem"
        authority.cert_pem.write_to_path(str(self.trusted))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.context)
        self.controller = None

    def start(self):
        def login(server, session, envelope, mechanism, data):
            good = (data.login, data.password) == (NAME.encode(), PASSWORD.encode())
            return AuthResult(success=good, handled=False)

        options = {}
        if self.tls != "none":
            options = {"authenticator": login, "auth_required": True, "auth_require_tls": self.tls == "starttls"}
        if self.tls == "starttls":
            options |= {"tls_context": self.context, "require_starttls": True}
        if self.tls == "tls":
            options |= {"ssl_context": self.context}
        self.controller = Controller(self.mailbox, hostname="127.0.0.1", port=self.port, **options)
        self.controller.start()

    def stop(self):
        self.controller.stop()


class Vatra:
    """The binary on RocksDB, with a folder of its own."""

    def __init__(self, folder: Path, mail: MailServer, password: str = PASSWORD, trusted: bool = True):
        self.folder, self.url = folder, f"http://127.0.0.1:{free_port()}"
        self.config, self.log = folder / "vatra.toml", folder / "vatra.log"
        login = "" if mail.tls == "none" else f'username = "{NAME}"\npassword = "{password}"\n'
        login += f'trusted_ca = "{mail.trusted}"\n' if trusted else ""
        self.config.write_text(
            f'server_name = "localhost"\ndata_dir = "{folder}/data"\nmedia_dir = "{folder}/media"\n'
            f'[client]\nlisten = "{self.url[7:]}"\nbase_url = "{self.url}"\n[registration]\nopen = true\n'
            f'[email]\nnotification_delay_s = 2\n[smtp]\nhost = "127.0.0.1"\nport = {mail.port}\ntls = "{mail.tls}"\nfrom = "Hearth <hearth@example.org>"\n{login}'
            '[log]\nfilter = "debug"\n'
        )
        self.process = None

    def start(self):
        log = open(self.log, "ab")
        self.process = subprocess.Popen([VATRA, "--config", str(self.config)], stdout=log, stderr=log)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health/ready", timeout=1):
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("vatra ended at start: " + self.log.read_text()[-500:])
                time.sleep(0.05)
        raise RuntimeError("vatra does not answer")

    def end(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(timeout=20)
            self.process = None

    def post(self, path: str, body: dict, good: int = 200, token: str = "", method: str = "POST") -> dict:
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        assert status == good, (path, status, text)
        return json.loads(text)

    def ask(self, address: str, secret: str = "s3cret") -> str:
        body = {"client_secret": secret, "email": address, "send_attempt": 1}
        return self.post("/_matrix/client/v3/register/email/requestToken", body)["sid"]

    def test(self, address: str):
        done = subprocess.run([VATRA, "--config", str(self.config), "mail", "test", address], capture_output=True, text=True, timeout=90)
        return done.returncode, done.stdout + done.stderr


def press(link: str):
    """Presses the page's button."""
    with urllib.request.urlopen(link, timeout=10) as page:
        assert b"<form" in page.read()
    path, query = link.split("?")
    with urllib.request.urlopen(path, query.encode(), timeout=10) as page:
        assert page.status == 200


def an_address_is_confirmed_and_registered(vatra, mail):
    vatra.start()
    sid = vatra.ask("Ana@Example.org")
    to, letter, secured, logged_in = mail.mailbox.wait(1)
    assert to == ["ana@example.org"] and letter["from"] == "Hearth <hearth@example.org>", (to, letter)
    # The session of a connection that is TLS from its first byte does not say that it is.
    assert bool(secured) == (mail.tls == "starttls") and bool(logged_in) == (mail.tls != "none"), (secured, logged_in)
    assert {part.get_content_type() for part in letter.iter_parts()} == {"text/plain", "text/html"}
    text = letter.get_body(("plain",)).get_content()
    press(re.search(r"http\S+", text).group())
    auth = {"type": "m.login.email.identity", "threepid_creds": {"sid": sid, "client_secret": "s3cret"}}
    body = {"username": "ana", "password": "correct horse battery", "auth": auth}
    assert vatra.post("/_matrix/client/v3/register", body)["user_id"] == "@ana:localhost"
    who = {"type": "m.id.thirdparty", "medium": "email", "address": "ana@example.org"}
    vatra.post("/_matrix/client/v3/login", {"type": "m.login.password", "identifier": who, "password": body["password"]})
    code, told = vatra.test("ion@example.org")
    assert code == 0 and "ion@example.org" in told, told
    assert mail.mailbox.wait(2)[0] == ["ion@example.org"]
    log = vatra.log.read_text()
    assert PASSWORD not in log and "s3cret" not in log and "token=" not in log, "a secret is in the log"


def who_is_away_is_written_to_and_stops_it_with_one_click(vatra, mail):
    vatra.start()
    client = "/_matrix/client/v3"
    sid = vatra.ask("ana@example.org")
    press(re.search(r"http\S+", mail.mailbox.wait(1)[1].get_body(("plain",)).get_content()).group())
    auth = {"type": "m.login.email.identity", "threepid_creds": {"sid": sid, "client_secret": "s3cret"}}
    body = {"username": "ana", "password": "correct horse battery", "auth": auth}
    ana = vatra.post(client + "/register", body)["access_token"]
    body = {"username": "ion", "password": "correct horse battery", "auth": {"type": "m.login.dummy"}}
    ion = vatra.post(client + "/register", body)["access_token"]
    room = vatra.post(client + "/createRoom", {"preset": "public_chat", "name": "Café ☕"}, token=ion)["room_id"]
    vatra.post(f"{client}/join/{room}", {}, token=ana)
    say = f"{client}/rooms/{room}/send/m.room.message/"
    vatra.post(say + "1", {"msgtype": "m.text", "body": "ești acolo?"}, token=ion, method="PUT")
    to, letter, *_ = mail.mailbox.wait(2)
    assert to == ["ana@example.org"] and letter["subject"] == "[localhost] Café ☕: 1 unread", letter["subject"]
    assert "ești acolo?" in letter.get_body(("plain",)).get_content() and "ești acolo?" in letter.get_body(("html",)).get_content()
    assert letter["list-unsubscribe-post"] == "List-Unsubscribe=One-Click" and letter["references"], letter
    link = "".join(letter["list-unsubscribe"].split()).strip("<>")
    assert link.startswith(vatra.url), link
    with urllib.request.urlopen(link, b"List-Unsubscribe=One-Click", timeout=10) as page:
        assert page.status == 200
    vatra.post(say + "2", {"msgtype": "m.text", "body": "nimeni"}, token=ion, method="PUT")
    time.sleep(4)
    assert len(mail.mailbox.letters) == 2, mail.mailbox.letters
    log = vatra.log.read_text()
    assert link.split("token=")[1] not in log and "acolo" not in log, "a secret is in the log"


def letters_outlive_a_mail_server_that_is_down_and_a_kill(vatra, mail):
    mail.stop()
    vatra.start()
    addresses = [f"user{number}@example.org" for number in range(5)]
    for address in addresses:
        vatra.ask(address)
    vatra.end(signal.SIGKILL)
    vatra.start()
    mail.start()
    mail.mailbox.wait(5)
    time.sleep(0.5)
    assert sorted(to for [to], *_ in mail.mailbox.letters) == addresses, mail.mailbox.letters


def a_kill_before_the_answer_sends_the_same_letter_once_more(vatra, mail):
    vatra.start()

    def kill():
        mail.mailbox.before_answer = None
        vatra.end(signal.SIGKILL)

    mail.mailbox.before_answer = kill
    vatra.ask("ana@example.org")
    first = mail.mailbox.wait(1)[1]
    time.sleep(0.5)
    vatra.start()
    second = mail.mailbox.wait(2)[1]
    assert first["message-id"] and first["message-id"] == second["message-id"]
    time.sleep(0.5)
    assert len(mail.mailbox.letters) == 2


def a_wrong_password_loses_no_letter_and_is_told(vatra, mail):
    code, told = vatra.test("ana@example.org")
    assert code != 0 and "535" in told, told
    vatra.start()
    vatra.ask("ana@example.org")
    time.sleep(1)
    vatra.end()
    assert mail.mailbox.letters == []
    right = Vatra(vatra.folder, mail)
    right.start()
    try:
        mail.mailbox.wait(1)
    finally:
        right.end()


def a_stranger_with_a_certificate_of_their_own_gets_nothing(vatra, mail):
    code, told = vatra.test("ana@example.org")
    assert code != 0 and "ertificate" in told, told
    assert mail.mailbox.letters == []


def main() -> int:
    cases = [(an_address_is_confirmed_and_registered, tls, {}) for tls in ["none", "starttls", "tls"]]
    cases += [
        (who_is_away_is_written_to_and_stops_it_with_one_click, "starttls", {}),
        (letters_outlive_a_mail_server_that_is_down_and_a_kill, "starttls", {}),
        (a_kill_before_the_answer_sends_the_same_letter_once_more, "tls", {}),
        (a_wrong_password_loses_no_letter_and_is_told, "starttls", {"password": "guess"}),
        (a_stranger_with_a_certificate_of_their_own_gets_nothing, "starttls", {"trusted": False}),
        (a_stranger_with_a_certificate_of_their_own_gets_nothing, "tls", {"trusted": False}),
    ]
    passed = failed = 0
    for case, tls, options in cases:
        name = f"mail ({tls}): {case.__name__}"
        with tempfile.TemporaryDirectory() as folder:
            mail = MailServer(Path(folder), tls)
            vatra = Vatra(Path(folder), mail, **options)
            mail.start()
            try:
                case(vatra, mail)
                passed += 1
                print(f"ok {name}")
            except Exception:
                failed += 1
                print(f"FAILED {name}\n{traceback.format_exc()}")
                if vatra.log.exists():
                    print(vatra.log.read_text()[-2000:])
            finally:
                vatra.end(signal.SIGKILL)
                mail.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
