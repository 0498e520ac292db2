"""The job of two people, done with matrix-nio."""

import asyncio
import struct
from pathlib import Path

import nio


def good(answer, kind):
    """The answer, if it is of the kind that means success."""
    assert isinstance(answer, kind), f"{answer}"
    return answer


class NioJob:
    def __init__(self, url: str, picture: Path):
        self.file = picture
        self.ana = nio.AsyncClient(url, "@ana:localhost")
        self.bogdan = nio.AsyncClient(url, "@bogdan:localhost")
        self.room = None
        self.said = []
        self.pictures = []

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
        """Ana uploads and posts a picture; Bogdan sees it and its thumbnail."""
        name = f"fire{len(self.pictures)}.png"
        size = self.file.stat().st_size
        with self.file.open("rb") as file:
            uploaded, _ = await self.ana.upload(file, "image/png", name, filesize=size)
        uri = good(uploaded, nio.UploadResponse).content_uri
        content = {"msgtype": "m.image", "body": name, "url": uri, "info": {"mimetype": "image/png", "size": size}}
        sent = good(await self.ana.room_send(self.room, "m.room.message", content), nio.RoomSendResponse)
        self.said.append((sent.event_id, name))

        def seen(answer):
            joined = answer.rooms.join.get(self.room)
            events = joined.timeline.events if joined else []
            return next((event for event in events if event.event_id == sent.event_id), None)

        event = await self.sync(self.bogdan, seen)
        assert isinstance(event, nio.RoomMessageImage), f"{event}"
        assert event.url == uri
        self.pictures.append(uri)
        await self.pictures_are_there()

    async def pictures_are_there(self):
        """Every picture ever shared, byte by byte, and as a PNG about as large as asked, of the same shape."""
        for uri in self.pictures:
            assert await self.fetch("download", uri) == self.file.read_bytes()
            small = await self.fetch("thumbnail", uri, "?width=320&height=240&method=scale")
            assert small.startswith(b"\x89PNG"), "the thumbnail is no PNG"
            width, height = struct.unpack(">II", small[16:24])
            assert 240 < width < 400 and abs(width / height - 900 / 700) < 0.02, f"the thumbnail has {width} x {height}"

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

    async def again(self):
        """After the server was away: what was there still is, old sync tokens hold, and everything goes on."""
        await self.history()
        await self.pictures_are_there()
        text = f"message {len(self.said)}"
        waiting = asyncio.create_task(self.sync(self.bogdan, lambda answer: text in self.bodies(answer)))
        await asyncio.sleep(0.05)
        await self.say(self.ana, text)
        await waiting
        await self.picture()
        await self.typing()
        await self.history()

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
