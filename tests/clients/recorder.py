"""A relay in front of the server that keeps what clients send, so that it can be searched for what must not be there."""

import asyncio
import base64
import binascii
import subprocess
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, web

HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length", "content-encoding", "accept-encoding"}


class Recorder:
    def __init__(self, target: str):
        self.target, self.port, self.sent = target, None, []

    async def start(self, port: int):
        self.session = ClientSession(timeout=ClientTimeout(total=120), auto_decompress=True)
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self.relay)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"

    async def relay(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.sent.append(f"{request.method} {request.raw_path}\n".encode() + body)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        async with self.session.request(
            request.method, self.target + request.raw_path, data=body, headers=headers, allow_redirects=False
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    async def close(self):
        await self.runner.cleanup()
        await self.session.close()


def forms(secret: str) -> list[bytes]:
    """How a secret may be written: as it is, and, if it is Base64, the bytes behind it and its other spellings."""
    found = [secret.encode()]
    try:
        key = base64.b64decode(secret + "=" * (-len(secret) % 4), validate=True)
    except (binascii.Error, ValueError):
        return found
    if len(key) >= 16:
        found += [key, base64.urlsafe_b64encode(key).rstrip(b"="), key.hex().encode()]
    return found


def places(recorders: list[Recorder], folder: Path) -> dict[str, bytes]:
    """Everything that the clients sent, that the server stores, and that it logged."""
    everything = {"a request": b"\n".join(sent for recorder in recorders for sent in recorder.sent)}
    stored = [file.read_bytes() for file in sorted((folder / "data").rglob("*")) if file.is_file()]
    everything["the store"] = b"\n".join(stored)
    everything["the log"] = (folder / "vatra.log").read_bytes()
    return everything


def nothing_leaked(found: dict[str, bytes], secrets: list[str], public: list[str], said: list[str]):
    """No secret is anywhere; what is public is in requests and store, so that the search is known to find things."""
    assert len(secrets) >= 5 and len(public) >= 2, "there is hardly anything to look for"
    for text in public:
        for place in ("a request", "the store"):
            assert text.encode() in found[place], f"{text} is public and not in {place}: the search is blind"
    for secret in secrets + said:
        for form in forms(secret):
            for place, content in found.items():
                assert form not in content, f"{secret[:6]}... is in {place}"
