"""What stands for a person where no id may be."""

from __future__ import annotations

import hmac
from typing import Any

import jsonschema
import orjson
import pytest

from decisioning import pseudonyms, schemas
from decisioning.batch import Batch
from decisioning.effects import State
from decisioning.engine import Engine
from features.rows import RowTable
from streams import settings
from streams.settings import SettingsError
from tests.play import config, identify, ms, track
from tests.test_engine_laws import Line

OLD, NEW = "2025:an old secret, no", "2026:a-new-secret-of-ours"
ODD = "\x00\n\u202e" + "ü" * 500


def test_it_is_a_keyed_hash_with_the_id_of_its_key() -> None:
    """HMAC-SHA256, cut to 128 bits; without the secret it cannot be computed."""
    digest = hmac.digest(b"a-new-secret-of-ours", b"person\0u1", "sha256").hex()
    assert pseudonyms.parse(NEW).of("u1") == f"2026:{digest[:32]}"


def test_a_new_key_is_put_in_front() -> None:
    """New pseudonyms are under the first key, those of before can still be computed."""
    before, after = pseudonyms.parse("2025:the-secret-of-old"), pseudonyms.parse(NEW + ", 2025:the-secret-of-old")
    assert after.all("u1") == [pseudonyms.parse(NEW).of("u1"), before.of("u1")]
    assert after.of("u1") == after.all("u1")[0]


def test_a_secret_without_an_id_is_named_by_itself() -> None:
    """Two secrets never go by the same name, and the name tells nothing of the secret."""
    one, two = (pseudonyms.parse(secret * 20).keys[0].id for secret in "ab")
    assert one != two
    assert len(one) == 8
    assert "a" * 8 not in one


def test_any_id_has_one() -> None:
    """Control characters, other scripts and great length included."""
    found = pseudonyms.parse(NEW).of(ODD)
    assert found is not None
    assert found.isascii()
    assert len(found) == len("2026:") + 32


@pytest.mark.parametrize("text", ["short", "2026:short", f"{NEW},", f"{NEW},x:short", f"{NEW},{NEW}", OLD])
def test_what_is_no_key_is_refused_without_quoting_it(text: str) -> None:
    """Too short, or two of the same name: one line with the remedy, and no secret in it."""
    with pytest.raises(ValueError, match=r"secret has|same id") as plain:
        pseudonyms.parse(text)
    with pytest.raises(SettingsError) as caught:
        settings.load(pseudonym_key=text)
    for said in (str(plain.value), str(caught.value)):
        assert not [part for part in text.split(",") if part and part.partition(":")[2] and part in said]
    assert "--pseudonym-key: expected id:secret" in str(caught.value)


def decided(names: pseudonyms.Pseudonyms) -> list[dict[str, Any]]:
    """Examples of one send and its reward."""
    goal = {"event": "Order Completed", "within": "72h"}
    engine = Engine(config(campaign={"goal": goal, "trigger": {"delay": "0s", "cancel_on": []}}), pseudonyms=names)
    rows, held = RowTable(), dict[str, bytes]()
    found = []
    for event in (identify("09:00", "i"), track("10:00", "t"), track("10:40", "buy", "Order Completed")):
        batch: Batch = engine.decode([Line(orjson.dumps(event), timestamp=ms("10:45"))])
        batch.due, batch.fire_until_ms = ["u1"], ms("11:00")
        state = State(0, 1, rows, held)
        while missing := engine.reads(state, batch):
            rows.add_new(missing)
        effects = engine.step(state, batch, ms("10:30"))
        rows.put(effects.people, effects.rows)
        held |= effects.profiles
        found += [orjson.loads(record.value) for record in effects.examples]
    return found


def test_examples_bear_the_pseudonym_and_no_id() -> None:
    """With a key each example and each correction says whose it is, without saying who that is."""
    names = pseudonyms.parse(NEW)
    found = decided(names)
    assert [example["correction"] for example in found] == [False] * 3 + [True] * 3
    assert {example["pseudonym"] for example in found} == {names.of("u1")}
    assert "u1" not in str(found)
    for example in found:
        jsonschema.validate(example, schemas.schema("examples"))


def test_without_a_key_examples_say_nothing_of_the_person() -> None:
    """There is no pseudonym that anybody could compute."""
    assert all("pseudonym" not in example for example in decided(pseudonyms.Pseudonyms()))
