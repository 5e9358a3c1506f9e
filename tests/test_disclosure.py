"""What a person is given to read about themselves."""

from __future__ import annotations

import orjson

from decisioning import disclosure
from decisioning import profile as profiles
from decisioning.profile import Profile
from features.codec import encode_many
from tests.play import identify, ms, play, track
from tests.test_profile import FULL


def test_every_field_is_told_by_name_with_dates_for_numbers() -> None:
    """Nothing of a full profile is left out, and it is JSON."""
    told = disclosure.of_profile(profiles.encode(FULL))
    assert orjson.loads(orjson.dumps(told)) == told
    fields = {name.removesuffix("_ms") for name in Profile.__struct_fields__}
    assert set(told) == fields - {"moved_to"}
    assert told["traits"]["email"] == {"at": "1970-01-01T00:00:00.007Z", "value": "ann@example.com"}
    assert told["pending"][0]["first"]["body"] == {"a": 1}
    assert told["suppressed"] == {"email": {"unsubscribed": "1970-01-01T00:00:00.011Z"}}
    assert told["days"] == {"2024-10-04": {"orders": 1.0, "revenue": 2.5, "clicks": 3.0}}


def test_what_a_profile_does_not_say_is_left_out() -> None:
    """Of an erased person there is the mark."""
    assert disclosure.of_profile(profiles.encode(Profile(erased_ms=5))) == {"erased": "1970-01-01T00:00:00.005Z"}
    assert disclosure.of_profile(b"") == {}


def test_the_row_is_told_by_the_names_of_its_features() -> None:
    """What was counted, how much of it is left now, and how many messages there were."""
    played = play([track("09:00", "v", "Product Viewed", properties={"price": 30}), identify("09:10", "i")])
    told = disclosure.of_row(encode_many(played.memory.rows.gather(["u1"]))[0], ms("09:00"))
    assert (told["is"], told["messages"], len(told["message_hashes"])) == (["known"], 3, 3)
    assert told["last_event"] == "2026-03-02T09:00:00.000Z"
    assert told["features"]["view_7d"] > 0.99


def test_a_record_that_is_no_json_is_told_as_text() -> None:
    """Dead letters hold anything."""
    assert disclosure.of_record(b'{"a": 1}') == {"a": 1}
    assert disclosure.of_record(b"\xff{") == "\\xff{"
    assert disclosure.of_record(None) is None
