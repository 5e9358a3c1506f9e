"""What fuzzing begins with: good inputs from the tests' own data, and each input that once was a finding.

The latter are in `corpus/<target>.txt`, a line each, written as a Python bytes literal.
"""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path
from typing import Final

import orjson

from decisioning import messages
from streams import changelog
from streams.changelog import Marker, Position
from tests.fuzz.targets import HISTORY, NOW_MS
from tests.play import CONFIG, identify, track

TESTS = Path(__file__).parent.parent
CORPUS = Path(__file__).parent / "corpus"

_KEYS = """
messageId message_id type action userId anonymousId previousId event timestamp sentAt receivedAt originalTimestamp
properties traits context timezone price quantity revenue cart_id product_id kind id person at_ms value into by source
row profile path n offsets now_ms partitions versions d
"""
_WORDS = r"""
track identify alias page delete move absorb u1 u2 anon1 null true {} [] [[[[ {"a": \ud800 \u0000 : :- ": Europe/Berlin
-1 1e999 1e15 9223372036854775808 18446744073709551616 0.1 NaN 1969-12-31T23:59:59Z 9999-12-31T23:59:59Z
<<: &a *a campaigns: trigger: when: where: delay: per: variants: event.properties. user.traits. {{ }} {% %}
"""
TOKENS: Final = [
    *(f'"{key}":'.encode() for key in _KEYS.split()),
    *(word.encode() for word in _WORDS.split()),
    *(b'"Product Added"', b'"Order Completed"', b'"Product Restocked"', b"\n", b"|\n", b"!\n", b">", b"@0\n", b" : "),
    *(b"\xff", b"\xc3", b"\x00" * 8, b"\x7f\xf8"),
]
"""What a random byte would rarely hit on."""


def seeds(target: str) -> list[bytes]:
    """Where the mutations of a target start, always the same."""
    return [*_good(target), *committed(target)]


def committed(target: str) -> list[bytes]:
    """Inputs kept because they found something."""
    path = CORPUS / f"{target}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def _good(target: str) -> list[bytes]:
    profile = bytes.fromhex((TESTS / "golden" / "profile-v1.hex").read_text().strip())
    rows = [bytes.fromhex(row["bytes"]) for row in json.loads((TESTS / "golden" / "rows-v1.json").read_text())]
    examples = (TESTS / "data" / "segment_spec" / "examples.jsonl").read_bytes().splitlines()
    stories = sorted((TESTS / "data" / "stories").iterdir())
    told = _messages(profile, rows[1])
    good = {
        "events": [*examples, *HISTORY, b"\n".join(HISTORY), b"\n".join(examples[:8])],
        "messages": told,
        "profile": [profile, b""],
        "rows": [*rows, rows[0] + b"\n" * 4 + rows[1]],
        "changelog": [
            changelog.encode_marker(Marker(n=3, offsets={"events": 5, "internal": 7}, now_ms=NOW_MS, partitions=2)),
            changelog.encode_position(Position(n=3, d=9, partitions=2)).encode(),
            *(image := changelog.encode_images(["u1"], [rows[1]], [profile], [NOW_MS])[0]),
            b"\n".join(image),
        ],
        "config": [
            orjson.dumps(CONFIG),
            (TESTS / "configs" / "shop.yaml").read_bytes(),
            *((story / "config.json").read_bytes() for story in stories),
        ],
        "engine": [
            b"\n".join(HISTORY),
            b"\n|\n".join(HISTORY),
            b"\n".join([*HISTORY[:3], b"!", *(b">" + one for one in told), b"@0", *HISTORY[3:]]),
            b"\n".join([*(b">" + one for one in told), b"|", *examples[:12]]),
            b"\n".join([b"@-1", HISTORY[0], b"@7258118399999", *HISTORY, b"@7258118400000", HISTORY[1]]),
            *((story / "events.jsonl").read_bytes() for story in stories),
        ],
    }
    return good[target]


def _messages(profile: bytes, row: bytes) -> list[bytes]:
    event = {"kind": "event", "at_ms": NOW_MS}
    other, named = orjson.dumps(track("10:00", "m2")).decode(), orjson.dumps(identify("10:00", "m6")).decode()
    told = [
        {**event, "id": "m1", "person": "u1", "value": HISTORY[1].decode()},
        {**event, "id": "m2", "person": "u2", "value": other},
        {**event, "id": "m6", "person": "u1", "value": named},
        {"kind": "move", "id": "m3", "person": "anon1", "at_ms": NOW_MS, "into": "u1", "by": "identify", "path": ["x"]},
        {"kind": "move", "id": "m4", "person": "u1", "at_ms": NOW_MS, "into": "u2", "by": "alias"},
        {"kind": "absorb", "id": "m5", "person": "u1", "at_ms": NOW_MS, "source": "anon1"}
        | {"row": messages.pack(row), "profile": messages.pack(profile)},
    ]
    return [orjson.dumps(message) for message in told]


def mutated(chance: random.Random, known: list[bytes]) -> bytes:
    """A seed with one to six small changes, or two seeds cut and joined."""
    data = bytearray(chance.choice(known))
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        match chance.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at % len(data)] = chance.randrange(256)
            case 2:
                del data[at : at + chance.randint(1, 8)]
            case 3:
                data[at:at] = chance.choice(TOKENS)
            case 4:
                token = chance.choice(TOKENS)
                data[at : at + len(token)] = token
            case 5:
                end = at + chance.randint(1, 40)
                data[at:at] = data[at:end] * chance.randint(1, 3)
            case _:
                other = chance.choice(known)
                cut = chance.randint(0, len(other))
                data[at:] = other[cut : cut + 4096]
    return bytes(data)
