"""Valid requests, made less so."""

import json
import random

WRONG = [
    None, True, -1, 0, 1.5, 2**53, 2**63, 2**64, -(2**53) - 1, 1e300, "", "\0", "\ufffd", "a" * 70_000, "\u202e\u0301", "%", "*", "?" * 300, [], {},
    [[[]]], [None] * 300, {"": {"a": []}}, "!a:b", "@a:b", "$a", "#a:b", "mxc://a/b", "m.room.message", "javascript:alert(1)",
]
DEEP = b"[" * 100_000
# What these are called in paths and queries is something else in bodies.
NOT_IN_BODIES = {"type", "kind", "version", "filter", "from", "to", "dir", "since", "membership"}
RAW = [
    b"", b"{", b"[]", b"null", b'"', DEEP, b'{"a":' * 50_000, b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b'{"a":NaN}', b'{"a":1e400}', b'{"a":-0}',
    b'{"a":"\xff"}', b"\xef\xbb\xbf{}", b"{}{}", b'{"a":9007199254740993}',
]


def places(value, at=()):
    """Every place in a JSON value."""
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*at, key))


def with_value(value, at, new):
    if not at:
        return new
    copy = value.copy()
    copy[at[0]] = with_value(value[at[0]], at[1:], new)
    return copy


def named(value, ids: dict, chance: random.Random, often: float):
    """A JSON value whose strings, where their names say what they are, are ids of things that are there."""
    if isinstance(value, list):
        return [named(item, ids, chance, often) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {}
    for key, item in value.items():
        known = ids.get(key.replace("_", "").lower()) if key not in NOT_IN_BODIES else None
        if known and isinstance(item, str) and chance.random() < often:
            item = chance.choice(known)
        filled[key] = named(item, ids, chance, often)
    return filled


def body(value, chance: random.Random):
    """A body with one thing in it that is wrong."""
    at = chance.choice(list(places(value)))
    kind = chance.random()
    if kind < 0.2 and at and isinstance(at[-1], str):
        above = value
        for key in at[:-1]:
            above = above[key]
        return with_value(value, at[:-1], {key: item for key, item in above.items() if key != at[-1]})
    return with_value(value, at, chance.choice(WRONG))


def raw(value, chance: random.Random) -> bytes:
    """Bytes that may be no JSON."""
    if chance.random() < 0.5:
        return chance.choice(RAW)
    sent = bytearray(json.dumps(value).encode())
    for _ in range(chance.randint(1, 4)):
        if sent:
            sent[chance.randrange(len(sent))] = chance.randrange(256)
    return bytes(sent)
