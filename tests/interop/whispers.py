"""Encrypted rooms across servers, with matrix-nio: whose keys change is noticed, and everybody reads everything."""

import asyncio
import os
import tempfile
from pathlib import Path

import nio

PATIENCE = 60


def good(answer, kind):
    """The answer, if it is of the kind that means success."""
    assert isinstance(answer, kind), f"{answer}"
    return answer


class Whisperer:
    """A device that encrypts."""

    def __init__(self, server, user: str, password: str, folder: Path):
        config = nio.AsyncClientConfig(store_sync_tokens=True, encryption_enabled=True)
        folder.mkdir()
        self.client = nio.AsyncClient(server.url, user, store_path=str(folder), config=config)
        self.user, self.password = user, password

    async def sync(self, what: str, found):
        """Syncs, and does what nio's own loop does after each, until something is found."""
        client = self.client
        for _ in range(PATIENCE * 2):
            answer = good(await client.sync(timeout=500), nio.SyncResponse)
            if client.should_upload_keys:
                good(await client.keys_upload(), nio.KeysUploadResponse)
            if client.should_query_keys:
                good(await client.keys_query(), nio.KeysQueryResponse)
            if client.should_claim_keys:
                good(await client.keys_claim(client.get_users_for_key_claiming()), nio.KeysClaimResponse)
            await client.send_to_device_messages()
            if found(answer):
                return
        raise AssertionError(f"{self.user} does not see {what}")

    async def say(self, room: str, text: str):
        content = {"msgtype": "m.text", "body": text}
        sent = await self.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
        good(sent, nio.RoomSendResponse)

    async def hear(self, room: str, texts: list[str]):
        """All of these texts, decrypted."""
        missing = set(texts)

        def found(answer):
            joined = answer.rooms.join.get(room)
            for event in joined.timeline.events if joined else []:
                if isinstance(event, nio.RoomMessageText) and event.decrypted:
                    missing.discard(event.body)
            return not missing

        await self.sync(f"{texts}", found)

    def knows(self, user: str, count: int):
        return lambda _: len(list(self.client.device_store.active_user_devices(user))) == count


async def talk(here, there, folder: Path):
    tag = f"{os.getpid()}-{id(folder) % 100_000}"
    ana = Whisperer(here, f"@ana{tag}:{here.name}", "ana has a password", folder / "ana")
    dan = Whisperer(there, f"@dan{tag}:{there.name}", "dan has a password", folder / "dan")
    devices = [ana, dan]
    try:
        for device in devices:
            name = device.user[1:].split(":")[0]
            good(await device.client.register(name, device.password), nio.RegisterResponse)
            await device.sync("anything", lambda _: True)
        encrypted = [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]
        room = good(await ana.client.room_create(invite=[dan.user], initial_state=encrypted), nio.RoomCreateResponse).room_id
        await dan.sync("the invite", lambda answer: room in answer.rooms.invite)
        good(await dan.client.join(room), nio.JoinResponse)
        for device in devices:
            await device.sync("the other", lambda _: room in device.client.rooms and len(device.client.rooms[room].users) == 2)
        await ana.sync("the device", ana.knows(dan.user, 1))
        await dan.sync("the device", dan.knows(ana.user, 1))
        await ana.say(room, "the treasure lies under the oak")
        await dan.hear(room, ["the treasure lies under the oak"])
        await dan.say(room, "which of the two oaks")
        await ana.hear(room, ["which of the two oaks"])
        # While one is away, others speak; all is read later.
        texts = [f"while you were away {number}" for number in range(3)]
        for text in texts:
            await ana.say(room, text)
        await dan.hear(room, texts)
        # A second device is noticed on the other server, and written to; its end is noticed too.
        second = Whisperer(there, dan.user, dan.password, folder / "second")
        devices.append(second)
        good(await second.client.login(second.password), nio.LoginResponse)
        await second.sync("the room", lambda _: room in second.client.rooms)
        await ana.sync("two devices", ana.knows(dan.user, 2))
        await ana.say(room, "now for two devices")
        await dan.hear(room, ["now for two devices"])
        await second.hear(room, ["now for two devices"])
        good(await second.client.logout(), nio.LogoutResponse)
        await ana.sync("one device", ana.knows(dan.user, 1))
    finally:
        for device in devices:
            await device.client.close()


def play(here, there):
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(asyncio.wait_for(talk(here, there, Path(name)), 240))
