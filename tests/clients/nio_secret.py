"""Five people whisper, done with matrix-nio: each device has keys that it never shows."""

import asyncio
from pathlib import Path

import nio

from nio_job import good

NAMES = ("ileana", "mihai", "sorin", "tudor", "vera")


class NioSecret:
    """A group of five in an encrypted room; the first two also as a pair."""

    def __init__(self, url: str, folder: Path):
        self.said, self.people = [], []
        for name in NAMES:
            store = folder / f"nio-{name}"
            store.mkdir()
            config = nio.AsyncClientConfig(store_sync_tokens=True, encryption_enabled=True)
            self.people.append(nio.AsyncClient(url, f"@{name}:localhost", store_path=str(store), config=config))
        self.group = self.pair = None

    async def close(self):
        for client in self.people:
            await client.close()

    async def keep_up(self, client):
        """What nio's own loop does after each sync."""
        if client.should_upload_keys:
            good(await client.keys_upload(), nio.KeysUploadResponse)
        if client.should_query_keys:
            good(await client.keys_query(), nio.KeysQueryResponse)
        if client.should_claim_keys:
            good(await client.keys_claim(client.get_users_for_key_claiming()), nio.KeysClaimResponse)
        await client.send_to_device_messages()

    async def sync(self, client, until=lambda answer: True):
        for _ in range(30):
            answer = good(await client.sync(timeout=500), nio.SyncResponse)
            await self.keep_up(client)
            found = until(answer)
            if found:
                return found
        raise AssertionError("not seen in 30 syncs")

    async def meet(self):
        for client, name in zip(self.people, NAMES):
            good(await client.register(name, f"{name} has a password"), nio.RegisterResponse)
            await self.sync(client)
        self.group = await self.room(self.people)
        self.pair = await self.room(self.people[:2])

    async def room(self, people):
        others = [client.user_id for client in people[1:]]
        encrypted = [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]
        created = await people[0].room_create(invite=others, initial_state=encrypted)
        room = good(created, nio.RoomCreateResponse).room_id
        for client in people[1:]:
            await self.sync(client, lambda answer: room in answer.rooms.invite)
            good(await client.join(room), nio.JoinResponse)
        for client in people:
            ready = lambda _: room in client.rooms and len(client.rooms[room].users) == len(people)
            await self.sync(client, ready)
            assert client.rooms[room].encrypted
        return room

    def heard(self, room, text):
        def found(answer):
            joined = answer.rooms.join.get(room)
            for event in joined.timeline.events if joined else []:
                if isinstance(event, nio.RoomMessageText) and event.body == text:
                    assert event.decrypted, "it was not encrypted"
                    return True
            return False

        return found

    async def whisper(self, speaker, listeners, room, text):
        content = {"msgtype": "m.text", "body": text}
        sent = await speaker.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
        good(sent, nio.RoomSendResponse)
        self.said.append(text)
        await asyncio.gather(*(self.sync(client, self.heard(room, text)) for client in listeners))

    async def talk(self):
        """Each in turn is heard by all others; the pair both ways."""
        for speaker in self.people:
            listeners = [client for client in self.people if client is not speaker]
            await self.whisper(speaker, listeners, self.group, f"the password of {speaker.user_id} is long {len(self.said)}")
        one, two = self.people[:2]
        await self.whisper(one, [two], self.pair, f"the treasure lies under the oak {len(self.said)}")
        await self.whisper(two, [one], self.pair, f"which of the two oaks though {len(self.said)}")

    async def offline(self):
        """One is away while others write, and reads it all later; nobody's key is claimed twice."""
        away, others = self.people[4], self.people[:4]
        texts = [f"while you were away we said {number} of {len(self.said)}" for number in range(3)]
        for text in texts:
            await self.whisper(others[0], others[1:], self.group, text)
        missing = set(texts)

        def heard(answer):
            missing.difference_update(text for text in texts if self.heard(self.group, text)(answer))
            return not missing

        await self.sync(away, heard)

    async def new_device(self):
        """A second device is seen by the others, is written to, and reads what is said from then on."""
        old = self.people[1]
        store = Path(old.store_path).parent / f"nio-second-{len(self.said)}"
        store.mkdir()
        device = nio.AsyncClient(old.homeserver, old.user_id, store_path=str(store), config=old.config)
        good(await device.login(f"{NAMES[1]} has a password"), nio.LoginResponse)
        try:
            await self.sync(device, lambda _: self.group in device.rooms)
            speaker = self.people[0]
            await self.sync(speaker, lambda _: device.device_id in dict(speaker.device_store[old.user_id]))
            await self.whisper(speaker, [old, device], self.group, f"now on two devices {len(self.said)}")
            good(await device.logout(), nio.LogoutResponse)
            gone = lambda _: not any(d.id == device.device_id for d in speaker.device_store.active_user_devices(old.user_id))
            await self.sync(speaker, gone)
        finally:
            await device.close()

    def secrets(self):
        """The keys of the conversations, as the clients hold them."""
        sessions = [session for client in self.people for session in client.olm.outbound_group_sessions.values()]
        return [session.session_key for session in sessions]

    def public(self):
        keys = [client.olm.account.identity_keys for client in self.people]
        return [found["ed25519"] for found in keys] + [found["curve25519"] for found in keys]
