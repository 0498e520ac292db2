"""People log in to vatra with a real identity provider (oidc-provider-mock), as a browser and a stock client (matrix-nio) do it.

sso.py PATH_OF_VATRA. Prints 'N passed, N failed' and fails if anything failed.
"""

import asyncio
import html
import http.cookiejar
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from nio import AsyncClient, LoginResponse

VATRA = sys.argv[1]
CLIENT = "https://chat.example/app"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    def __init__(self, command: list, url: str, ready: str, log: Path):
        self.url, self.log = url, log
        self.process = subprocess.Popen(command, stdout=open(log, "ab"), stderr=subprocess.STDOUT)
        for _ in range(600):
            try:
                with urllib.request.urlopen(url + ready, timeout=1):
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"{command[0]} ended at start: " + log.read_text()[-500:])
                time.sleep(0.05)
        raise RuntimeError(f"{command[0]} does not answer")

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(timeout=20)


def start_provider(folder: Path) -> Process:
    port = free_port()
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce"]
    provider = Process(command, f"http://localhost:{port}", "/.well-known/openid-configuration", folder / "provider.log")
    claims = json.dumps({"preferred_username": "Ana", "name": "Ana Pop"}).encode()
    request = urllib.request.Request(provider.url + "/users/ana-1", claims, {"content-type": "application/json"}, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    return provider


def start_vatra(folder: Path, provider: Process) -> Process:
    url = f"http://127.0.0.1:{free_port()}"
    config = folder / "vatra.toml"
    config.write_text(
        f'server_name = "localhost"\ndata_dir = "{folder}/data"\nmedia_dir = "{folder}/media"\n'
        f'[client]\nlisten = "{url[7:]}"\nbase_url = "{url}"\n[sso]\nallow_loopback = true\n'
        f'[[sso.providers]]\nid = "mock"\nname = "The Provider"\nissuer = "{provider.url}"\n'
        'client_id = "vatra"\nclient_secret = "a secret of the provider"\n[log]\nfilter = "debug"\n'
    )
    return Process([VATRA, "--config", str(config)], url, "/health/ready", folder / "vatra.log")


class Browser:
    """Keeps cookies, follows redirects as far as they are the servers', and presses buttons."""

    class Stays(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    def __init__(self):
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(cookies, self.Stays)

    def open(self, url: str, form: dict | None = None):
        """Gives where it ends, and the page; the client's own place is not opened."""
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        for _ in range(10):
            try:
                with self.opener.open(url, data, timeout=20) as page:
                    return url, page.read().decode()
            except urllib.error.HTTPError as error:
                if error.code not in (302, 303):
                    raise AssertionError((url, error.code, error.read().decode())) from error
                url, data = urllib.parse.urljoin(url, error.headers["location"]), None
                if url.startswith(CLIENT):
                    return url, ""
        raise AssertionError("sent in circles")

    def press(self, at: str, page: str, **more):
        """Submits the first form of a page."""
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        action = re.search(r'<form[^>]*action="([^"]*)"', page)
        target = urllib.parse.urljoin(at, html.unescape(action.group(1))) if action else at
        return self.open(target, fields | more)


def redirect(vatra: Process) -> str:
    return f"{vatra.url}/_matrix/client/v3/login/sso/redirect?" + urllib.parse.urlencode({"redirectUrl": CLIENT})


async def client_with(vatra: Process, at: str) -> AsyncClient:
    token = urllib.parse.parse_qs(urllib.parse.urlsplit(at).query)["loginToken"][0]
    client = AsyncClient(vatra.url)
    answer = await client.login(token=token)
    assert isinstance(answer, LoginResponse), answer
    return client


def logs_in(vatra: Process, browser: Browser, new: bool) -> str:
    at, page = browser.open(redirect(vatra))
    assert "Authorize Client" in page, page
    at, page = browser.press(at, page, sub="ana-1")
    if new:
        assert 'value="ana"' in page, page
        at, page = browser.press(at, page, name="ana")
    assert "chat.example" in page, page
    at, _ = browser.press(at, page)
    return at


async def someone_logs_in_twice_and_is_the_same(vatra: Process):
    browser = Browser()
    client = await client_with(vatra, logs_in(vatra, browser, new=True))
    assert client.user_id == "@ana:localhost", client.user_id
    room = (await client.room_create()).room_id
    await client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "salut"})
    again = await client_with(vatra, logs_in(vatra, browser, new=False))
    assert again.user_id == "@ana:localhost"
    assert (await again.sync(timeout=0)).rooms.join.keys() == {room}

    # Without a password, a device goes when the provider confirms it.
    asked = await again.delete_devices([client.device_id])
    assert asked.flows == [{"stages": ["m.login.sso"]}], asked
    at, page = browser.open(f"{vatra.url}/_matrix/client/v3/auth/m.login.sso/fallback/web?session={asked.session}")
    at, page = browser.press(at, page)
    _, page = browser.press(at, page, sub="ana-1")
    assert "onAuthDone" in page, page
    await again.delete_devices([client.device_id], {"session": asked.session})
    left = await again.devices()
    assert [device.id for device in left.devices] == [again.device_id], left
    await client.close()
    await again.close()


async def who_is_denied_there_is_not_let_in_here(vatra: Process):
    browser = Browser()
    at, page = browser.open(redirect(vatra))
    try:
        browser.press(at, page, action="deny")
    except AssertionError as told:
        # The mock leaves out the state, so that nobody knows what is denied.
        assert told.args[0][1] in (400, 403), told
        return
    raise AssertionError("let in")


def main() -> int:
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        provider = start_provider(Path(folder))
        vatra = start_vatra(Path(folder), provider)
        for case in (someone_logs_in_twice_and_is_the_same, who_is_denied_there_is_not_let_in_here):
            try:
                asyncio.run(case(vatra))
                passed += 1
                print(f"ok sso: {case.__name__}")
            except Exception:
                failed += 1
                print(f"FAILED sso: {case.__name__}\n{traceback.format_exc()}")
                print(vatra.log.read_text()[-2000:] + provider.log.read_text()[-2000:])
        vatra.end()
        provider.end(signal.SIGKILL)
        log = vatra.log.read_text()
        secrets = [word for word in ("a secret of the provider", "loginToken=", "code=") if word in log]
        if secrets:
            failed += 1
            print(f"FAILED sso: {secrets} in the log")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
