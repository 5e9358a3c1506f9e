from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decisioning import events, reading
from decisioning.events import Decoded, arrival_ms, body, decode, number, text

EXAMPLES = [
    json.loads(line) for line in (Path(__file__).parent / "data/segment_spec/examples.jsonl").read_text().splitlines()
]
NOW = "2026-03-01T13:00:00.000Z"
NOW_MS = 1_772_370_000_000
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Line:
    value: bytes | None
    timestamp: int = NOW_MS
    topic: str = "events"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


def event(**fields: Any) -> dict[str, Any]:
    """A good track event, changed; `...` leaves a field out."""
    good = {"messageId": "m1", "type": "track", "userId": "u1", "event": "Product Added", "timestamp": NOW}
    return {name: value for name, value in (good | fields).items() if value is not ...}


def line(**fields: Any) -> Line:
    return Line(json.dumps(event(**fields)).encode())


def one(record: Line, aliases: dict[str, str] | None = None) -> events.Event:
    decoded = decode([record] * 8, aliases or {})  # enough for the fast reading to be tried
    assert decoded.rejected == []
    return decoded.events[-1]


def reason(value: bytes | None) -> str | None:
    decoded = decode([Line(value)] * 8, {})
    return decoded.rejected[-1].reason if decoded.rejected else None


def outcome(decoded: Decoded) -> list[tuple[Any, ...]]:
    """Everything a caller can see, comparable."""
    kept = [
        (record, msgspec.structs.astuple(made)[:11], made.person, made.at_ms, made.clamped, made.timezone)
        for made, record in zip(decoded.events, decoded.records, strict=True)
    ]
    return [*kept, *((letter.record, letter.reason, letter.message) for letter in decoded.rejected)]


def strictly(records: list[Line]) -> Decoded:
    """Decode as the definition says, without the fast reading."""
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(events, "fast_event", lambda _value, _keys: None)
        patched.setattr(events, "key_counts", lambda values: ([0] * len(values), True))
        return decode(records, {})


# What is good


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["page"])
def test_every_example_of_segments_spec_is_an_event(example: dict[str, Any]) -> None:
    """Given a messageId where the page left it out, every documented payload decodes, snake case as well."""
    payload = example["payload"]
    named = "message_id" if "user_id" in payload else "messageId"
    record = Line(json.dumps({named: "m1"} | payload).encode())
    made, whole = one(record), body(record, {})
    assert made.type == payload.get("type", payload.get("action")) == whole["type"]
    assert made.person == (payload.get("userId") or payload.get("user_id") or payload.get("anonymousId"))
    assert (whole["messageId"], whole.get("userId")) == (made.message_id, made.user_id)
    assert set(made.props) == set(payload.get("properties", {}))


def test_usual_events_take_the_fast_reading() -> None:
    """What Segment's SDKs send is not left to the strict reading: it would cost four times as much."""
    documents = [{"messageId": "m1"} | example["payload"] for example in EXAMPLES if "type" in example["payload"]]
    documents.append(event(properties={"name": 'Une "robe", rouge : l\'été'}, context={"page": {"path": "/"}}))
    values = [
        json.dumps(document, separators=separators).encode()
        for document in documents
        for separators in ((",", ":"), (", ", ": "))
    ]
    counts, _ = reading.key_counts(values)
    fast = [reading.fast_event(value, keys) for value, keys in zip(values, counts, strict=True)]
    assert all(fast), [value for value, made in zip(values, fast, strict=True) if not made]


def test_a_record_that_is_too_large_is_not_looked_at() -> None:
    """Whatever is in it is left to the strict reading, and what is known of the others is as without it."""
    values = [json.dumps(event(messageId=f"m{n}"), separators=(",", ":")).encode() for n in range(5)]
    too_large = b'{"x": -1,"y":"' + b":" * reading.MAX_RECORD_BYTES + b'"}'
    counts, signed = reading.key_counts(values)
    assert reading.key_counts([*values[:2], too_large, *values[2:]]) == ([*counts[:2], -1, *counts[2:]], signed)


def test_an_event_has_what_every_event_is_looked_at_for() -> None:
    """Fields, person, aliases, numbers as floats, the zone of the context."""
    made = one(
        line(
            event="Added To Cart",
            anonymousId="a1",
            properties={"price": 20, "product_id": "p1", "products": [{"price": 1}]},
            context={"timezone": "Asia/Tokyo", "library": {"name": "js"}},
        ),
        {"Added To Cart": "Product Added"},
    )
    assert (made.message_id, made.user_id, made.anonymous_id, made.person) == ("m1", "u1", "a1", "u1")
    assert (made.event, made.timezone, made.at_ms, made.record_ms) == ("Product Added", "Asia/Tokyo", NOW_MS, NOW_MS)
    assert made.props == {"price": 20.0, "product_id": "p1", "products": [{"price": 1.0}]}
    assert (number(made.props, "price"), text(made.props, "product_id")) == (20.0, "p1")


@pytest.mark.parametrize(
    "fields",
    [
        {"properties": {"price": "20", "quantity": True, "revenue": None, "product_id": ["p"]}},
        {"properties": {"total": -3, "value": -1.5, "latitude": -33.9}},
        {"properties": {"nested": {"a": [{"b": [{"c": [{"d": 1}]}]}]}}},
        {"properties": {"limit": 1e15, "lowest": -1e15}},
        {"properties": {}, "context": {}, "traits": {}},
        {"properties": None, "context": None, "traits": None},
        {"context": {"timezone": 5, "big": 2**70, "ip": "::1"}},
        {"context": {"traits": {"email": "a@example.com"}, "page": {"path": "/", "n": [1, [2, {"x": {}}]]}}},
        {"userId": None, "anonymousId": "a1"},
        {"userId": "", "anonymousId": "a1"},
        {"userId": "ü" * 512},
        {"userId": 'quoted "id": \\ here'},
        {"event": ': "starts with a colon', "properties": {"a": ":b", "c": " : d"}},
        {"timestamp": None},
        {"nobody": {"knows": [1, 2, 3]}, "at_ms": 5, "person": "someone", "clamped": True},
        {"type": "identify", "event": ..., "traits": {"email": "a@example.com", "consent": {"sms": False}}},
        {"type": "alias", "event": ..., "previousId": "a1"},
        {"type": "page", "event": ..., "name": "Home"},
        {"type": "screen", "event": ...},
        {"type": "group", "event": ..., "groupId": "g1"},
        {"type": "delete", "event": ...},
    ],
)
def test_what_is_odd_but_not_malformed_is_kept(fields: dict[str, Any]) -> None:
    """Mistyped or unknown contents are not the envelope's fault; fast and strict reading see the same."""
    record = line(**fields)
    made = one(record)
    assert made.person in {"u1", "a1", "ü" * 512, 'quoted "id": \\ here'}
    assert outcome(decode([record] * 8, {})) == outcome(strictly([record] * 8))
    assert body(record, {})["messageId"] == "m1"


def test_only_a_track_event_has_an_event_name() -> None:
    """A stray `event` in an identify must not trigger anything."""
    assert one(line(type="identify")).event is None


def test_snake_case_is_read_as_camel_case() -> None:
    """Segment's other forms of the envelope, in both views of the event."""
    record = Line(
        json.dumps(
            {
                "message_id": "m1",
                "action": "track",
                "user_id": "u1",
                "anonymous_id": "a1",
                "event": "Old",
                "sent_at": "2026-03-01T13:00:05Z",
                "original_timestamp": "2026-03-01T13:00:04Z",
                "received_at": "2026-03-01T13:00:02Z",
                "properties": {"user_id": "stays"},
            }
        ).encode()
    )
    made = one(record, {"Old": "New"})
    assert (made.message_id, made.user_id, made.anonymous_id, made.event) == ("m1", "u1", "a1", "New")
    assert made.at_ms == NOW_MS + 1000
    whole = body(record, {"Old": "New"})
    assert whole["event"] == "New"
    assert whole["properties"] == {"user_id": "stays"}
    assert not whole.keys() & {"message_id", "user_id", "action", "sent_at"}


def test_the_body_is_as_received() -> None:
    """Whole numbers stay whole for rules, and what no double can hold is None where it is allowed at all."""
    record = Line(json.dumps(event(properties={"quantity": 2, "price": 20.5})).encode()[:-1] + b',"odd":1e999}')
    assert one(record).props == {"quantity": 2.0, "price": 20.5}
    whole = body(record, {})
    assert whole["properties"] == {"quantity": 2, "price": 20.5}
    assert type(whole["properties"]["quantity"]) is int
    assert whole["odd"] is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("p1", "p1"), ("", None), (17, "17"), (1.5, None), (True, None), (None, None), ([], None)],
)
def test_ids_among_properties_may_be_whole_numbers(value: Any, expected: str | None) -> None:
    """Shops number their products; both spellings are the same product."""
    assert text(one(line(properties={"product_id": value})).props, "product_id") == expected


# What is not

GOOD = json.dumps(event()).encode()


def raw(fragment: str) -> bytes:
    """A good event with something more."""
    return GOOD[:-1] + b"," + fragment.encode() + b"}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b'{"a":"' + b"x" * (10 << 20) + b'"}', "too_large"),
        (GOOD[:-1] + b" " * (256 * 1024) + b"}", "too_large"),
        (GOOD.replace(b"u1", b"\xff"), "not_utf8"),
        (raw('"unknown":"é"').decode().encode("latin-1"), "not_utf8"),
        (GOOD.replace(b"u1", b"\xed\xa0\x80"), "not_utf8"),
        (GOOD[: len(GOOD) // 2], "not_json"),
        (GOOD + b" x", "not_json"),
        (GOOD + GOOD, "not_json"),
        (b"\xef\xbb\xbf" + GOOD, "not_json"),
        (raw('"properties":{"price":NaN}'), "not_json"),
        (raw('"properties":{"price":-Infinity}'), "not_json"),
        (raw('"unknown":NaN'), "not_json"),
        (raw('"unknown":01'), "not_json"),
        (raw('"unknown":"\t"'), "not_json"),
        (b"nope", "not_json"),
        (b"[" * 100_000, "too_deep"),
        (raw('"x":' + "[" * 64 + "]" * 64), "too_deep"),
        (raw('"properties":{"x":' + '{"a":' * 100 + "1" + "}" * 101), "too_deep"),
        (b"null", "not_an_object"),
        (b"17", "not_an_object"),
        (b"[" + GOOD + b"]", "not_an_object"),
        (b"{}", "unknown_type"),
        (line(messageId=...).value, "no_message_id"),
        (line(messageId="").value, "no_message_id"),
        (line(messageId=None).value, "no_message_id"),
        (line(messageId=7).value, "wrong_type"),
        (line(userId=...).value, "no_person"),
        (line(userId="", anonymousId=None).value, "no_person"),
        (line(userId=5).value, "wrong_type"),
        (line(userId=["u1"]).value, "wrong_type"),
        (line(anonymousId={}).value, "wrong_type"),
        (line(type="purchase").value, "unknown_type"),
        (line(type=...).value, "unknown_type"),
        (line(type=1).value, "wrong_type"),
        (line(event=...).value, "no_event"),
        (line(event="").value, "no_event"),
        (line(event=3).value, "wrong_type"),
        (line(type="alias").value, "no_previous_id"),
        (line(type="alias", previousId="").value, "no_previous_id"),
        (line(properties=[]).value, "wrong_type"),
        (line(properties="x").value, "wrong_type"),
        (line(type="identify", traits="x").value, "wrong_type"),
        (line(context=[]).value, "wrong_type"),
        (line(timestamp=1772370000).value, "wrong_type"),
        (line(timestamp="yesterday").value, "bad_time"),
        (line(timestamp="2026-02-30T00:00:00Z").value, "bad_time"),
        (line(timestamp="2026-03-01").value, "bad_time"),
        (line(timestamp="9999-12-31T23:59:59Z").value, "time_out_of_range"),
        (line(timestamp="1969-12-31T23:59:59Z").value, "time_out_of_range"),
        (line(timestamp="0001-01-01T00:00:00+14:00").value, "time_out_of_range"),
        (line(receivedAt=NOW, sentAt="9999-01-01T00:00:00Z", originalTimestamp=NOW).value, "time_out_of_range"),
        (line(userId="u" * 513).value, "id_too_long"),
        (line(messageId="m" * 513).value, "id_too_long"),
        (raw(r'"properties":{"name":"\ud800"}'), "lone_surrogate"),
        (raw(r'"unknown":"\udc00\ud800"'), "lone_surrogate"),
        (raw(r'"properties":{"\udfff":1}'), "lone_surrogate"),
        (raw('"userId":"u2"'), "duplicate_key"),
        (raw(r'"user\u0049d":"u2"'), "duplicate_key"),
        (raw('"userId" :"u2"'), "duplicate_key"),
        (raw('"userId"\n:"u2"'), "duplicate_key"),
        (raw('"userId" \t:"u2"'), "duplicate_key"),
        (raw('"userId":""'), "duplicate_key"),
        (raw('"user_id":"u2"'), "duplicate_key"),
        (raw('"properties":{"price":1,"price":2}'), "duplicate_key"),
        (raw('"properties":{},"properties":{"price":2}'), "duplicate_key"),
        (raw('"context":{"page":{"a":1,"a":1}}'), "duplicate_key"),
        (raw('"unknown":[{"a":1,"a":1}]'), "duplicate_key"),
        (raw('"properties":{"price":1e999}'), "number_out_of_range"),
        (raw('"properties":{"price":18446744073709551616}'), "number_out_of_range"),
        (raw('"properties":{"deep":[{"n":[-1e19]}]}'), "number_out_of_range"),
        (raw('"properties":{"n":' + "9" * 5000 + "}"), "number_out_of_range"),
        (raw('"traits":{"n":9300000000000000000}'), "number_out_of_range"),
        (line(properties={"price": -0.01}).value, "negative_amount"),
        (line(properties={"quantity": -1}).value, "negative_amount"),
        (json.dumps(event(properties={"revenue": -5}), separators=(",", ":")).encode(), "negative_amount"),
        (raw('"properties":{"revenue":\n-5}'), "negative_amount"),
    ],
)
def test_a_malformed_record_is_a_dead_letter_with_its_reason(value: bytes | None, expected: str) -> None:
    """One verdict each, the same from the strict reading, and the neighbours in the batch are not touched."""
    assert reason(value) == expected
    good = Line(GOOD)
    bad = Line(value)
    decoded = decode([good, bad, good, good], {})
    assert (len(decoded.events), [letter.record for letter in decoded.rejected]) == (3, [bad])
    expected_outcome = outcome(strictly([bad] * 8))
    assert outcome(decode([bad] * 8, {})) == expected_outcome
    assert outcome(decode([bad], {})) == expected_outcome[:1]


def test_the_limits_are_inclusive() -> None:
    """256 KB, 64 levels, 512 characters and 1e15 are still good."""
    padded = GOOD[:-1] + b" " * (256 * 1024 - len(GOOD)) + b"}"
    assert len(padded) == 256 * 1024
    assert reason(padded) is None
    assert reason(raw('"x":' + "[" * 63 + "]" * 63)) is None
    assert reason(line(userId="u" * 512, messageId="m" * 512).value) is None
    assert reason(raw('"properties":{"n":1000000000000000}')) is None


def test_brackets_within_texts_are_not_depth() -> None:
    """A text may hold what it likes."""
    assert reason(line(properties={"name": '[{"' * 500}).value) is None


def test_records_cannot_swallow_their_neighbours() -> None:
    """Two halves that would be whole if values were joined are two dead letters, and what lies between is kept."""
    halves = [Line(GOOD[:-1] + b',"x":[{}'), Line(GOOD), Line(b"{}]}")]
    for records in (halves, halves * 3):
        decoded = decode(records, {})
        assert decoded.records == [record for record in records if record is halves[1]]
        assert len(decoded.rejected) == len(records) - len(decoded.records)


# One definition, whatever way and batch

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", ":", ' "', "u1", "\\", "é", "\x00", "track", NOW, "9999-12-31T23:59:59Z", "x" * 513]),
)
keys = st.sampled_from(["a", "b", "price", "revenue", "timezone", "userId", "", ":", "é"])
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
names = st.sampled_from(
    [
        *("messageId", "type", "userId", "anonymousId", "previousId", "event", "timestamp", "sentAt", "receivedAt"),
        *("originalTimestamp", "properties", "traits", "context", "integrations", "version", "channel", "person"),
        *("user_id", "message_id", "action", "at_ms", "unknown"),
    ]
)
documents = st.builds(
    lambda fields, changes: event(**fields) | changes,
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["track", "identify", "alias", "page", "delete"]),
            "userId": st.sampled_from(["u1", "u2", None, ""]),
            "anonymousId": st.sampled_from(["a1", None, ""]),
            "properties": st.dictionaries(keys, values, max_size=4),
            "traits": st.dictionaries(keys, values, max_size=2),
            "context": st.dictionaries(keys, values, max_size=3),
        },
    ),
    st.dictionaries(names, values, max_size=2),
)
writers: st.SearchStrategy[Callable[[Any], str]] = st.sampled_from(
    [
        lambda document: json.dumps(document, separators=(",", ":")),
        lambda document: json.dumps(document, separators=(",", ":"), ensure_ascii=False),
        lambda document: json.dumps(document, ensure_ascii=False),
        lambda document: json.dumps(document, separators=(" , ", " : ")),
        lambda document: json.dumps(document, indent=1),
    ]
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Documents as somebody might write them, and sometimes spoiled."""
    data = draw(writers)(draw(documents)).encode()
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        data = draw(
            st.sampled_from(
                [
                    data[:start] + data[end:],
                    data[:end] + data[start:],  # a piece twice: often a key
                    data[:start] + b'"userId":"x",' + data[start:],
                    data[:start] + draw(st.binary(max_size=2)) + data[start:],
                ]
            )
        )
    return data


@given(st.lists(texts(), max_size=8))
@settings(max_examples=400)
def test_the_fast_reading_agrees_with_the_definition(many: list[bytes]) -> None:
    """Whatever the bytes, decoding in one batch, one by one and by the strict reading alone is the same."""
    records = [Line(value, offset=offset) for offset, value in enumerate(many)]
    together = decode(records, {})
    assert len(together.events) + len(together.rejected) == len(records)
    expected = outcome(strictly(records))
    assert outcome(together) == expected
    singly = [decode([record], {}) for record in records]
    apart = Decoded()
    for decoded in singly:
        apart.events += decoded.events
        apart.records += decoded.records
        apart.rejected += decoded.rejected
    assert outcome(apart) == expected
    for made, record in zip(together.events, together.records, strict=True):
        whole = body(record, {})
        assert whole["messageId"] == made.message_id
        assert (whole.get("userId") or whole["anonymousId"]) == made.person
        json.dumps(whole, allow_nan=False)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(value: bytes) -> None:
    """Every record is an event or a dead letter; its time can be asked for in any case."""
    decoded = decode([Line(value)], {})
    assert len(decoded.events) + len(decoded.rejected) == 1
    arrival_ms(value)


def test_an_empty_batch_is_nothing() -> None:
    """No records, no events."""
    assert outcome(decode([], {})) == []


# Time


@pytest.mark.parametrize(
    ("timestamp", "at_ms", "clamped"),
    [
        (NOW, NOW_MS, False),
        ("2026-03-01T14:00:00+01:00", NOW_MS, False),
        ("2026-03-01T13:00:00", NOW_MS, False),  # without a zone it is UTC
        ("2026-03-01T12:59:59.999999Z", NOW_MS - 1, False),  # whole milliseconds, cut off
        ("2026-03-01T12:59:59.123Z", NOW_MS - 877, False),
        ("2026-03-01T13:05:00Z", NOW_MS + 300_000, False),
        ("2026-03-01T13:05:00.001Z", NOW_MS, True),
        ("2025-01-25T13:00:00Z", NOW_MS - 400 * DAY_MS, False),
        ("2025-01-25T12:59:59.999Z", NOW_MS, True),
        ("1970-01-01T00:00:00Z", NOW_MS, True),
        ("2199-12-31T23:59:59Z", NOW_MS, True),
        (None, NOW_MS, True),
        (..., NOW_MS, True),
    ],
)
def test_a_time_that_cannot_be_is_the_records_own(timestamp: Any, at_ms: int, clamped: bool) -> None:
    """Absent, more than 5 minutes after or 400 days before the record's time: that time counts, and says so."""
    decoded = decode([line(timestamp=timestamp)], {})
    assert (decoded.events[0].at_ms, decoded.events[0].clamped, decoded.clamped) == (at_ms, clamped, int(clamped))


@pytest.mark.parametrize("record_ms", [-1, -(2**63), 7_258_118_400_000, 2**63 - 1])
def test_a_record_whose_own_time_cannot_be_is_refused(record_ms: int) -> None:
    """Producers can set it: nothing downstream has to bear a time out of range."""
    decoded = decode([Line(GOOD, record_ms)], {})
    assert [letter.reason for letter in decoded.rejected] == ["time_out_of_range"]


def test_skew_never_leads_out_of_time() -> None:
    """A correction to before 1970 is no time at all, so the record's own time counts."""
    skewed = {"receivedAt": "1970-01-01T00:00:00Z", "originalTimestamp": NOW, "sentAt": "2026-03-02T00:00:00Z"}
    record = Line(json.dumps(event(**skewed)).encode(), timestamp=5)
    assert (one(record).at_ms, one(record).clamped) == (5, True)


@given(st.integers(NOW_MS - 300 * DAY_MS, NOW_MS))
def test_every_millisecond_is_exact(at_ms: int) -> None:
    """Times keep their millisecond: cancels at the same instant as a trigger depend on it."""
    seconds, rest = divmod(at_ms, 1000)
    written = datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:03}Z"
    assert one(line(timestamp=written)).at_ms == at_ms


def test_the_clients_clock_is_corrected() -> None:
    """With all three times, the event happened as long before the arrival as it did before the sending."""
    skewed = {
        "timestamp": "2026-03-01T09:00:00Z",
        "originalTimestamp": "2026-03-01T20:00:00Z",
        "sentAt": "2026-03-01T20:00:10Z",
    }
    assert one(line(**skewed, receivedAt="2026-03-01T12:59:00Z")).at_ms == NOW_MS - 70_000
    assert one(line(**skewed)).at_ms == NOW_MS - 4 * 3_600_000
    assert one(line(**skewed, receivedAt=None)).at_ms == NOW_MS - 4 * 3_600_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (line(receivedAt="2026-03-01T13:00:01Z").value, NOW_MS + 1000),
        (Line(b'{"received_at":"2026-03-01T13:00:01Z","timestamp":"2026-03-01T13:00:00Z"}').value, NOW_MS + 1000),
        (GOOD, NOW_MS),
        (line(receivedAt="soon").value, NOW_MS),
        (line(receivedAt=5).value, NOW_MS),
        (line(timestamp="9999-12-31T23:59:59Z").value, None),
        (line(timestamp=...).value, None),
        (b"", None),
        (b"null", None),
        (b'{"timestamp"', None),
        (b"[" * 100_000, None),
    ],
)
def test_a_line_of_a_file_arrives_at_what_it_says(value: bytes, expected: int | None) -> None:
    """`receivedAt`, else `timestamp`; nothing usable is None and never moves a clock."""
    assert arrival_ms(value) == expected
