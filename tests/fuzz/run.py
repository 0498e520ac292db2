"""Every operation of the client-server API, asked by schemathesis what its OpenAPI file calls for, with ids of things that are there, and then
less and less validly. The server may refuse anything, but never fail.

run.py PATH_OF_VATRA SPEC [--seeds 1,2,3] [--cases 41] [--only operationId]. Prints 'N passed, N failed' and fails if anything failed: an operation that was
answered with a server error, or with an error that has no errcode; a store that is not sound afterwards; a /sync that does not answer.
"""

import argparse
import collections
import http.server
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

import mutate
from people import People

parser = argparse.ArgumentParser()
parser.add_argument("vatra")
parser.add_argument("spec", type=Path)
parser.add_argument("--seeds", default="1,2,3")
parser.add_argument("--cases", type=int, default=41)
parser.add_argument("--only")
args = parser.parse_args()

# What says that a request was not even understood.
UNREAD = {"M_BAD_JSON", "M_NOT_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM", "M_UNRECOGNIZED", None}
# Pages for people, and files: their errors need no errcode of Matrix.
PAGES = {"redirectToSSO", "redirectToIdP", "fallbackAuth"}


class Server:
    def __init__(self, folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.config = folder / "vatra.toml"
        self.config.write_text(
            f'server_name = "localhost"\ndata_dir = "{folder}/data"\nmedia_dir = "{folder}/media"\n'
            f'[client]\nlisten = "{self.url[7:]}"\nbase_url = "{self.url}"\n[registration]\nopen = true\nguests = true\n'
            '[rate_limits]\nenabled = false\n[media]\nlegacy_unauthenticated = true\n[url_preview]\nenabled = true\nallow_loopback = true\ntimeout_s = 2\n[storage]\ndurability = "relaxed"\n'
            '[turn]\nuris = ["turn:turn.example.org"]\nshared_secret = "secret"\n[support]\nadmin_email = "admin@example.org"\n'
        )
        self.log = folder / "vatra.log"
        self.process = subprocess.Popen([args.vatra, "--config", str(self.config)], stdout=open(self.log, "ab"), stderr=subprocess.STDOUT)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/health/ready", timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("vatra ended at its start: " + self.log.read_text()[-500:])
                time.sleep(0.05)
        sys.exit("vatra does not answer")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def page() -> str:
    """A page of this machine, for previews; gives its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>A page</title>")

        def log_message(self, *_):
            pass

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{site.server_port}/"


class Fuzz:
    def __init__(self, server: Server):
        self.server, self.people = server, People(server.url, page())
        self.statuses = collections.defaultdict(collections.Counter)
        self.failures = collections.defaultdict(list)
        self.read = self.cases = 0

    def operation(self, operation, base: str, number: int):
        """All cases of an operation, by one seed."""
        name = operation.definition.raw["operationId"]
        self.as_admin = "/admin/" in operation.path and "whois" not in name.lower()
        self.begin()
        chance = random.Random(f"{number} {name}")
        examples = operation.get_strategies_from_examples()
        modes = [operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
        share = args.cases // 4
        plans = [(modes[0], args.cases - 2 * share, 0.8), (modes[1], share, 0.5)]
        plans.append((examples[0], share, 0.95) if examples else (modes[0], share, 0.95))
        for strategy, count, often in plans:
            before = self.cases
            # What a schema has no more examples of is asked again, otherwise made invalid.
            for turn in range(count):
                left = count - (self.cases - before)
                if left <= 0:
                    break
                if not self.given(strategy, left, f"{number} {name} {turn}", name, base, often, chance):
                    # Where nothing could be invalid.
                    strategy = modes[0]

    def begin(self):
        """Whoever asks is new; an admin, where admins are needed."""
        self.people.begin()
        if self.as_admin:
            name = self.people.alice[1:].split(":")[0]
            subprocess.run([args.vatra, "--config", str(self.server.config), "user", "admin", name], check=True, capture_output=True)

    def given(self, strategy, count, text, name, base, often, chance):
        @seed(int.from_bytes(text.encode(), "big"))
        @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=strategy)
        def all_of_them(case):
            self.ask(name, case, base, often, chance)

        try:
            all_of_them()
            return True
        except Unsatisfiable:
            return False

    def ask(self, name, case, base, often, chance):
        ids = self.people.ids
        # In paths schemathesis wants them encoded.
        for place, encoded in ((case.path_parameters, lambda value: quote(value, safe="")), (case.query, str)):
            for key in list(place or {}):
                known = ids.get(key.replace("_", "").lower())
                # URLs always: no stranger's server is asked for what comes to mind here.
                if known and (key == "url" or chance.random() < often):
                    place[key] = encoded(chance.choice(known))
        # Nobody has the time to wait for what does not come.
        waits = {it.name for it in case.operation.query} & {"timeout", "timeout_ms"}
        case.query = {**(case.query or {}), **dict.fromkeys(waits, 0)}
        request = case.as_transport_kwargs(base_url=self.server.url + base)
        # Two operations of one path are told apart by a space at the end of one of them.
        request["url"] = request["url"].removesuffix("%20").rstrip()
        sent = request.get("json")
        if sent is not None:
            sent = mutate.named(sent, ids, chance, often)
            if isinstance(sent, dict) and "auth" in sent and chance.random() < often:
                sent["auth"] = self.people.auth
            kind = chance.random()
            if kind < (1 - often) / 2:
                sent = mutate.body(sent, chance)
            request["json"] = sent
            if kind > 1 - (1 - often) / 4:
                request.pop("json")
                request["data"] = mutate.raw(sent, chance)
        headers = {**(request.get("headers") or {}), "authorization": f"Bearer {self.people.token}"}
        request["headers"] = {key: value for key, value in headers.items() if key.lower() != "cookie"}
        request.update(timeout=60, allow_redirects=False)
        self.cases += 1
        try:
            answer = self.people.session.request(**request)
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
            return
        self.judge(name, case, request, answer)

    def judge(self, name, case, request, answer):
        status = answer.status_code
        self.statuses[name][status] += 1
        code = None
        if status >= 400:
            try:
                code = answer.json().get("errcode")
            except (ValueError, AttributeError):
                pass
        if status < 400 or code not in UNREAD:
            self.read += 1
        documented = case.operation.responses.status_codes
        is_bad = status >= 500 and str(status) not in documented
        is_wordless = status >= 400 and code is None and name not in PAGES and not (status == 401 and "flows" in answer.text)
        if is_bad or is_wordless:
            what = f"{status} {answer.text[:200]} to {request['method']} {request['url']} {request.get('params')} "
            self.failures[name].append(what + repr(request.get("json", request.get("data")))[:500])
        ends = status < 300 and re.search("(?i)logout|deactivate|deleteDevice", name)
        if ends or code in ("M_UNKNOWN_TOKEN", "M_USER_LOCKED", "M_USER_SUSPENDED"):
            self.begin()


def main() -> int:
    files = sorted((args.spec / "data/api/client-server").glob("*.yaml"))
    schemas = [schemathesis.openapi.from_path(str(file)) for file in files]
    folder = Path(tempfile.mkdtemp(prefix="vatra-fuzz-"))
    server = Server(folder)
    fuzz = Fuzz(server)
    begun, documented = time.time(), {}
    for number in args.seeds.split(","):
        for schema in schemas:
            base = schema.raw_schema["servers"][0]["variables"]["basePath"]["default"]
            for result in schema.get_all_operations():
                operation = result.ok()
                name = operation.definition.raw["operationId"]
                if args.only in (None, name):
                    documented[name] = [status for status in operation.responses.status_codes if status.startswith("2")]
                    fuzz.operation(operation, base, int(number))
        print(f"seed {number}: {fuzz.cases} cases, {time.time() - begun:.0f} s", flush=True)
    failures = dict(fuzz.failures)
    try:
        fuzz.people.begin()
        fuzz.people.ask("GET", "/_matrix/client/v3/sync?timeout=0")
    except requests.RequestException as error:
        failures["/sync afterwards"] = [repr(error)]
    server.end()
    check = subprocess.run([args.vatra, "--config", str(server.config), "check"], capture_output=True, text=True)
    print(check.stdout[-1500:], check.stderr[-1500:])
    if check.returncode != 0:
        failures["vatra check"] = [f"ended with {check.returncode}"]
    unseen = {name: wanted for name, wanted in documented.items() if wanted and not any(fuzz.statuses[name][int(it)] for it in wanted)}
    if unseen:
        print("never answered as documented:")
        for name in unseen:
            print(f"   {name}: {dict(fuzz.statuses[name])}")
    for name, all_of_them in failures.items():
        print(f"{name}: {len(all_of_them)} failures, such as")
        for failure in all_of_them[:3]:
            print("   ", failure)
    share = 100 * fuzz.read / max(fuzz.cases, 1)
    print(f"{fuzz.cases} cases of {len(documented)} operations by seeds {args.seeds}; {share:.0f} % passed validation")
    if share < 20 and not args.only:
        failures["validation"] = ["fewer than 20 % passed"]
    if failures:
        print(f"the server's folder, with its log: {folder}")
    else:
        shutil.rmtree(folder)
    # With validation, /sync and the check.
    print(f"{len(documented) + 3 - len(failures)} passed, {len(failures)} failed")
    return bool(failures)


sys.exit(main())
