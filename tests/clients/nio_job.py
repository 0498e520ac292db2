"""The job of two people, done with matrix-nio."""

import asyncio
import struct
import zlib

import nio


def png(width: int, height: int) -> bytes:
    """A red picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def good(answer, kind):
    """The answer, if it is of the kind that means success."""
    assert isinstance(answer, kind), f"{answer}"
    return answer


class NioJob:
    def __init__(self, url: str, folder):
        self.folder = folder
        self.ana = nio.AsyncClient(url, "@ana:localhost")
        self.bogdan = nio.AsyncClient(url, "@bogdan:localhost")
        self.room = None
        self.said = []

    async def close(self):
        await self.ana.close()
        await self.bogdan.close()

    async def sync(self, client, until):
        """Syncs until something is seen. nio keeps the token itself."""
        for _ in range(20):
            answer = good(await client.sync(timeout=2000), nio.SyncResponse)
            found = until(answer)
            if found:
                return found
        raise AssertionError("not seen in 20 syncs")

    def bodies(self, answer):
        joined = answer.rooms.join.get(self.room)
        return [getattr(event, "body", None) for event in joined.timeline.events] if joined else []

    async def meet(self):
        for client, name in ((self.ana, "ana"), (self.bogdan, "bogdan")):
            good(await client.register(name, f"{name} has a password"), nio.RegisterResponse)
        good(await self.ana.set_displayname("Ana"), nio.ProfileSetDisplayNameResponse)
        created = await self.ana.room_create(name="Vatra", topic="by the fire", invite=["@bogdan:localhost"])
        self.room = good(created, nio.RoomCreateResponse).room_id
        await self.sync(self.bogdan, lambda answer: self.room in answer.rooms.invite)
        good(await self.bogdan.join(self.room), nio.JoinResponse)
        await self.sync(self.ana, lambda answer: self.room in answer.rooms.join)
        await self.sync(self.bogdan, lambda answer: self.room in answer.rooms.join)
        assert self.bogdan.rooms[self.room].display_name == "Vatra"
        assert self.bogdan.rooms[self.room].user_name("@ana:localhost") == "Ana"

    async def say(self, client, text):
        content = {"msgtype": "m.text", "body": text}
        sent = good(await client.room_send(self.room, "m.room.message", content), nio.RoomSendResponse)
        self.said.append((sent.event_id, text))
        return sent.event_id

    async def chat(self):
        for speaker, listener, text in (
            (self.ana, self.bogdan, "Bună seara!"),
            (self.bogdan, self.ana, "Bună, Ana 🔥"),
            (self.ana, self.bogdan, "Shall we cook?"),
        ):
            waiting = asyncio.create_task(self.sync(listener, lambda answer: text in self.bodies(answer)))
            await asyncio.sleep(0.05)
            event = await self.say(speaker, text)
            await waiting
            good(await listener.room_read_markers(self.room, event, event), nio.RoomReadMarkersResponse)

    async def picture(self):
        picture = png(900, 700)
        path = self.folder / "fire.png"
        path.write_bytes(picture)
        with path.open("rb") as file:
            uploaded, _ = await self.ana.upload(file, "image/png", "fire.png", filesize=len(picture))
        uri = good(uploaded, nio.UploadResponse).content_uri
        content = {"msgtype": "m.image", "body": "fire.png", "url": uri, "info": {"mimetype": "image/png"}}
        good(await self.ana.room_send(self.room, "m.room.message", content), nio.RoomSendResponse)

        def seen(answer):
            joined = answer.rooms.join.get(self.room)
            events = joined.timeline.events if joined else []
            return next((event for event in events if isinstance(event, nio.RoomMessageImage)), None)

        event = await self.sync(self.bogdan, seen)
        assert await self.fetch("download", event.url) == picture
        small = await self.fetch("thumbnail", event.url, "?width=320&height=240&method=scale")
        assert 0 < len(small) != len(picture)

    async def fetch(self, what, uri, query=""):
        """The authenticated endpoints, which this release of nio does not use by itself."""
        server, media = uri.removeprefix("mxc://").split("/")
        path = f"/_matrix/client/v1/media/{what}/{server}/{media}{query}"
        headers = {"Authorization": f"Bearer {self.bogdan.access_token}"}
        async with self.bogdan.client_session.get(self.bogdan.homeserver + path, headers=headers) as answer:
            assert answer.status == 200, f"{answer.status} {await answer.text()}"
            return await answer.read()

    async def typing(self):
        def types(answer):
            joined = answer.rooms.join.get(self.room)
            events = joined.ephemeral if joined else []
            return any(isinstance(event, nio.TypingNoticeEvent) and "@ana:localhost" in event.users for event in events)

        waiting = asyncio.create_task(self.sync(self.bogdan, types))
        await asyncio.sleep(0.05)
        good(await self.ana.room_typing(self.room, True, timeout=5000), nio.RoomTypingResponse)
        await waiting
        good(await self.ana.room_typing(self.room, False), nio.RoomTypingResponse)

    async def read_back(self):
        """All messages of the room by /messages, page by page."""
        start, texts = "", {}
        while True:
            page = good(await self.bogdan.room_messages(self.room, start, limit=20), nio.RoomMessagesResponse)
            texts.update({event.event_id: getattr(event, "body", None) for event in page.chunk})
            if not page.end:
                return texts
            start = page.end

    async def history(self):
        texts = await self.read_back()
        for event, text in self.said:
            assert texts.get(event) == text, f"{text} is missing"

    all_there = history

    async def again(self):
        """After the server was away: old tokens hold, the history is there, and the chat goes on."""
        await self.history()
        text = f"message {len(self.said)}"
        waiting = asyncio.create_task(self.sync(self.bogdan, lambda answer: text in self.bodies(answer)))
        await asyncio.sleep(0.05)
        await self.say(self.ana, text)
        await waiting

    async def flood(self, kill):
        """Messages as fast as they go, by several at once, until the server is killed among them."""
        start = len(self.said)

        async def speak(client, name):
            for number in range(10_000):
                text = f"{name} {number}"
                url = f"{client.homeserver}/_matrix/client/v3/rooms/{self.room}/send/m.room.message/{name}{number}"
                headers = {"Authorization": f"Bearer {client.access_token}"}
                body = {"msgtype": "m.text", "body": text}
                try:
                    async with client.client_session.put(url, json=body, headers=headers) as answer:
                        if answer.status == 200:
                            self.said.append(((await answer.json())["event_id"], text))
                        elif answer.status == 429:
                            await asyncio.sleep(0.05)
                except OSError:
                    return
                except Exception as error:  # the connection went away in the middle
                    if "Disconnected" in type(error).__name__ or "Payload" in type(error).__name__:
                        return
                    raise

        speakers = [asyncio.create_task(speak(self.ana, f"a{number}")) for number in range(4)]
        speakers += [asyncio.create_task(speak(self.bogdan, f"b{number}")) for number in range(4)]
        await asyncio.sleep(1.5)
        kill()
        await asyncio.gather(*speakers)
        assert len(self.said) - start > 20, "hardly anything was sent"
