"""The learner is a fold: resumable at any record to the byte, and nothing it reads can stop it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bandits import learner as learner_module
from bandits.arms import ArmModel
from bandits.learner import Learner, key_of
from bandits.policy import Floats
from bandits.snapshot import MAX_SNAPSHOT_BYTES, Snapshot, SnapshotError, decode, encode
from bandits.spec import PolicySpec

WIDTH = 2
KNOWN = {"sale/subject": PolicySpec(half_life_s=86400.0), "sale/channel": PolicySpec(), "sale/send_time": PolicySpec()}


def features(policy: str, arm: str, context: Mapping[str, float]) -> Floats:
    """Two numbers of context; of a send time three, of the arm itself."""
    if policy == "sale/send_time":
        return np.array([float(arm == hour) for hour in ("9", "12", "18")])
    return np.array([context.get("age", 0.0), context.get("opens", 0.0)])


def made() -> Learner:
    """A learner of three policies, one of them over rows."""
    return Learner(WIDTH, features, KNOWN.get, 3, lambda policy: 3 if policy == "sale/send_time" else None)


def record(index: int, **more: Any) -> bytes:
    """An example."""
    policy = sorted(KNOWN)[index % 3]
    arm = ("9", "12", "18")[index % 3] if policy == "sale/send_time" else "ab"[index % 2]
    return json.dumps(
        {
            "schema": 1,
            "decision_id": f"d{index}",
            "policy": policy,
            "arm": arm,
            "propensity": 0.5,
            "context": {"age": index % 7, "opens": index % 5},
            "reward": 0.0,
            "correction": False,
            "at": f"2026-11-{1 + index % 28:02d}T08:00:00.000Z",
        }
        | more
    ).encode()


def log(count: int) -> list[bytes]:
    """Examples, a correction of every third, and some that are taken back."""
    found = []
    for index in range(count):
        found.append(record(index))
        sent = f"2026-11-{1 + index % 28:02d}T08:00:00.000Z"
        if index % 3 == 0:
            found.append(record(index, correction=True, delta=1.5, sent_at=sent, at="2026-12-24T00:00:00Z"))
        if index % 10 == 9:
            earned = 1.5 if index % 3 == 0 else 0.0
            found.append(record(index, correction=True, delta=-earned, forget=True, sent_at=sent))
    return found


def fold(learner: Learner, records: list[bytes], first: int = 0) -> Learner:
    """Take records from an offset on."""
    for offset, value in enumerate(records, first):
        learner.take(value, offset)
    return learner


@pytest.mark.parametrize("stop", [1, 2, 57, 100, 139])
def test_resuming_anywhere_ends_in_the_same_bytes(stop: int) -> None:
    """From the snapshots at any record, and the log from the oldest version on, the end is that of one run."""
    records = log(100)
    whole = fold(made(), records).snapshots()
    half = fold(made(), records[:stop])
    left = half.snapshots()
    resumed = made()
    for value in left.values():
        resumed.resume(value)
    oldest = min(decode(value).version for value in left.values())
    fold(resumed, records[oldest:], oldest)
    assert {**left, **resumed.snapshots()} == whole
    assert set(whole) == set(KNOWN)


def test_a_record_taken_twice_counts_once() -> None:
    """Offsets already seen change nothing, and what is wrong with one is counted once."""
    records = [*log(30), b"{"]
    once, twice = fold(made(), records), fold(made(), records)
    fold(twice, records)
    assert once.snapshots() == twice.snapshots()
    assert once.learned == twice.learned
    assert once.refused == twice.refused


def test_an_outcome_weighs_as_its_example_does() -> None:
    """A correction that came ten half-lives later has the weight of `sent_at`, as if it had come at once."""
    late, soon = made(), made()
    first, last = "2026-11-01T08:00:00Z", "2026-11-11T08:00:00Z"
    fold(late, [record(1, policy="sale/subject", arm="a", at=first)])
    fold(soon, [record(1, policy="sale/subject", arm="a", at=first, reward=1.0)])
    late.take(record(1, policy="sale/subject", arm="a", at=last, sent_at=first, correction=True, delta=1.0), 1)
    for learner in (late, soon):
        learner.take(record(2, policy="sale/subject", arm="b", at=last), 2)
        model = learner.model("sale/subject")
        assert isinstance(model, ArmModel)
        assert model.tried() == {"a": (pytest.approx(2.0**-10), pytest.approx(1.0)), "b": (1.0, 0.0)}


def test_snapshots_are_those_that_changed() -> None:
    """Each call gives what changed since the one before; a version is the offset after the last example."""
    learner = made()
    learner.take(record(0), 10)
    assert {name: decode(value).version for name, value in learner.snapshots().items()} == {"sale/channel": 11}
    assert learner.snapshots() == {}
    learner.take(b"{", 11)
    assert learner.snapshots() == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "wrong_type"),
        (b"[]", "wrong_type"),
        (b'"' + b"x" * 300_000 + b'"', "too_large"),
        (record(0, schema=2), "unknown_schema"),
        (record(0, policy="sale/other"), "unknown_policy"),
        (record(0, reward="1"), "wrong_type"),
        (record(0, reward=None), "wrong_type"),
        (record(0, arm=7), "wrong_type"),
        (record(0, at="yesterday"), "wrong_type"),
        (record(0, at="2026-11-01T08:00:00"), "wrong_type"),
        (record(0, context={"age": "old"}), "wrong_type"),
        (record(0, reward=1e300), "not_learnable"),
        (record(0, context={"age": 1e300}), "not_learnable"),
        (record(0).replace(b'"reward": 0.0', b'"reward": NaN'), "not_json"),
        (record(0).replace(b'"reward": 0.0', b'"reward": 1e999'), None),
        (record(0, correction=True), "no_delta"),
        (record(0, correction=True, delta=1.0, arm="never seen"), None),
        (record(0, correction=True, delta=0.0, forget=True, arm="never seen"), None),
    ],
)
def test_bad_records_are_counted_and_change_nothing(value: bytes, reason: str | None) -> None:
    """Whatever a record is: no exception, one count under its reason, and the models as they were."""
    learner = fold(made(), log(20))
    before, refused = learner.snapshots(), sum(learner.refused.values())
    assert learner.take(value, 1000) is None
    assert sum(learner.refused.values()) == refused + 1
    assert reason is None or learner.refused[reason] == 1
    assert learner.snapshots() == {}
    again = fold(made(), log(20))
    assert again.snapshots() == before
    assert learner.take(record(1), 1001) == "sale/send_time"


def test_random_bytes_never_stop_it() -> None:
    """2,000 damaged records: each learned or counted."""
    rng = np.random.default_rng(1)
    learner = made()
    for offset in range(2000):
        bad = bytearray(record(offset))
        for _ in range(int(rng.integers(1, 4))):
            bad[int(rng.integers(0, len(bad)))] = int(rng.integers(0, 256))
        learner.take(bytes(bad), offset)
    assert learner.learned + sum(learner.refused.values()) == 2000


def test_policies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One policy too many is counted."""
    monkeypatch.setattr(learner_module, "MAX_POLICIES", 1)
    learner = made()
    assert [learner.take(record(index), index) for index in range(2)] == ["sale/channel", None]
    assert learner.refused == {"too_many_policies": 1}


def test_a_snapshot_of_another_kind_is_refused_and_the_last_good_one_stays() -> None:
    """Another layout of context, another kind, another width, damaged or too large: one error, nothing changes."""
    learner = fold(made(), log(20))
    good = learner.snapshots()["sale/channel"]
    snapshot = decode(good)
    other = Learner(5, lambda *_: np.zeros(5), KNOWN.get, 3)
    other.take(record(0), 0)
    bad = [
        good[:-2],
        b"null",
        b"x" * (MAX_SNAPSHOT_BYTES + 1),
        other.snapshots()["sale/channel"],
        encode(Snapshot(model="sale/channel", kind="arms", version=9, data=snapshot.data, context_version=2)),
        encode(Snapshot(model="sale/channel", kind="propensity", version=9, data=snapshot.data, context_version=3)),
        encode(Snapshot(model="sale/channel", kind="arms", version=9, data=snapshot.data[:-1], context_version=3)),
        good.replace(b'"schema":1', b'"schema":2'),
    ]
    model = learner.model("sale/channel")
    assert model is not None
    before = model.to_bytes()
    for value in bad:
        with pytest.raises(SnapshotError):
            learner.resume(value)
    after = learner.model("sale/channel")
    assert after is not None
    assert after.to_bytes() == before


def test_another_half_life_is_learned_anew() -> None:
    """A changed half-life holds: a snapshot that was learned with the former one is not gone on from."""
    records = log(40)
    former = fold(made(), records).snapshots()["sale/subject"]
    now = KNOWN | {"sale/subject": PolicySpec(half_life_s=3600.0)}
    learner = Learner(WIDTH, features, now.get, 3, lambda policy: 3 if policy == "sale/send_time" else None)
    with pytest.raises(SnapshotError, match="half-life 86400"):
        learner.resume(former)
    model = fold(learner, records).model("sale/subject")
    assert model is not None
    assert model.half_life_s == 3600.0


def test_a_snapshot_says_what_it_is() -> None:
    """Encoding and decoding keep everything, and equal snapshots have equal bytes."""
    snapshot = Snapshot(
        model="m", kind="linear", version=2**40, data=bytes(range(256)), context_version=7, meta={"a": 1}
    )
    assert decode(encode(snapshot)) == snapshot
    assert encode(decode(encode(snapshot))) == encode(snapshot)


def test_keys_differ_by_identity() -> None:
    """10,000 decisions fall into 64 buckets evenly: chi-square, 63 degrees of freedom, wrong once in 10^6."""
    found = np.bincount([key_of(f"decision {index}") % 64 for index in range(10_000)], minlength=64)
    assert (((found - 156.25) ** 2) / 156.25).sum() < 131.0
