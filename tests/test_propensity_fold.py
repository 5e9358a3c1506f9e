"""The learner of propensity models: labels mature by the records' clock, and a restart changes no byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from bandits import propensity_fold, snapshot
from bandits.propensity_fold import PropensityFold, scorer
from bandits.snapshot import Snapshot, SnapshotError

FEATURES = ("successes", "trials", "visit")
START = datetime(2026, 3, 1, tzinfo=UTC)


def iso(hours: float) -> str:
    return (START + timedelta(hours=hours)).isoformat()


def example(name: str, hours: float, label: str = "open", **changes: Any) -> bytes:
    record = {
        "schema": 1,
        "decision_id": name,
        "policy": f"propensity/{label}",
        "arm": "sent",
        "propensity": 1.0,
        "context": {"successes": 1.0, "trials": 2.0, "visit": 0.5},
        "reward": 0.0,
        "correction": False,
        "at": iso(hours),
        "mature_at": iso(hours + 72),
    }
    return json.dumps({key: value for key, value in (record | changes).items() if value is not None}).encode()


def correction(name: str, hours: float, label: str = "open", delta: float = 1.0, **changes: Any) -> bytes:
    more = {"correction": True, "delta": delta, "reward": delta, "context": {}, "mature_at": None}
    return example(name, hours, label, **(more | changes))


def log_of(seed: int, count: int = 700) -> list[bytes]:
    """A log of two labels: a send a quarter of an hour, some opened later, some never."""
    rng = np.random.default_rng(seed)
    timed: list[tuple[float, bytes]] = []
    for index in range(count):
        at, visit = index / 4, float(rng.random())
        context = {"successes": float(index % 3), "trials": 3.0, "visit": visit}
        for label in ("open", "click"):
            timed.append((at, example(f"d{index}", at, label, context=context)))
            if rng.random() < visit:
                opened = at + rng.exponential(20.0)
                timed.append((opened, correction(f"d{index}", opened, label)))
    return [record for _, record in sorted(timed, key=lambda entry: entry[0])]


def fold_of() -> PropensityFold:
    return PropensityFold(("open", "click"), FEATURES)


def waiting(fold: PropensityFold, label: str = "open") -> dict[str, float]:
    """What waits, with its label so far."""
    return {name: one.label for name, one in fold._labels[label].waiting.items()}


def outcomes(fold: PropensityFold, label: str = "open") -> list[bool]:
    """Labels that were given to the model and wait for a batch."""
    return fold._labels[label].model.waiting_y


def test_a_label_is_learned_when_it_is_mature_and_not_before() -> None:
    """Three days after the send by the records' own times, with what became of it until then."""
    fold = fold_of()
    for offset, record in enumerate([example("a", 0), example("b", 1), correction("b", 5), example("c", 71.9)]):
        fold.take(record, offset)
    assert (waiting(fold), outcomes(fold)) == ({"a": 0.0, "b": 1.0, "c": 0.0}, [])
    fold.take(example("d", 72.0), 4)
    fold.take(correction("a", 72.5), 5)  # too late
    assert outcomes(fold) == [False]
    fold.take(example("e", 73.0), 6)
    assert outcomes(fold) == [False, True]
    assert fold.refused == {"unknown_decision": 1}


def test_a_label_that_begins_at_one_can_be_taken_back() -> None:
    """As churn's: the sum of the records counts."""
    fold = fold_of()
    records = [
        example("a", 0, reward=1.0),
        example("b", 0, reward=1.0),
        correction("b", 1, delta=-1.0),
        example("c", 99),
    ]
    for offset, record in enumerate(records):
        fold.take(record, offset)
    assert outcomes(fold) == [True, False]


def test_who_was_erased_is_not_learned_from() -> None:
    """`forget` takes an example away while it waits."""
    fold = fold_of()
    for offset, record in enumerate([example("a", 0), correction("a", 1, delta=0.0, forget=True), example("b", 99)]):
        fold.take(record, offset)
    assert (waiting(fold), outcomes(fold)) == ({"b": 0.0}, [])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "malformed"),
        (example("a", 0, schema=2), "malformed"),
        (example("a", 0, mature_at=None), "malformed"),
        (example("a", 0, at="2026-03-01T00:00:00"), "malformed"),
        (example("a", 0, mature_at=iso(24 * 500)), "malformed"),
        (example("a", 0, context={"visit": "x"}), "malformed"),
        (correction("a", 0, delta=None), "malformed"),  # type: ignore[arg-type]
        (example("a", 0, context={"visit": 1e300}), "not_finite"),
        (example("a", 0).replace(b'"visit": 0.5', b'"visit": 1e999'), "malformed"),
        (example("a", 0).replace(b'"visit": 0.5', b'"visit": NaN'), "malformed"),
        (example("a", 0, "churn"), "unknown_policy"),
        (example("a", 0, policy="cart/subject"), "unknown_policy"),
        (correction("nobody", 0), "unknown_decision"),
    ],
)
def test_what_cannot_be_learned_is_counted_and_changes_nothing(record: bytes, reason: str) -> None:
    """One reason each, no exception; what follows is learned."""
    fold = fold_of()
    assert fold.take(record, 0) is None
    assert fold.refused == {reason: 1}
    fold.take(example("b", 1), 1)
    fold.take(example("c", 99), 2)
    assert outcomes(fold) == [False]


def test_repeats_and_latecomers_are_counted() -> None:
    """The same example twice, and one older than its window."""
    fold = fold_of()
    for offset, record in enumerate([example("a", 100), example("a", 100), example("b", 1)]):
        fold.take(record, offset)
    assert (fold.refused, fold.taken) == ({"duplicate": 1, "late": 1}, 1)


def test_too_many_waiting_are_thinned_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, whatever comes; who stays is chosen by a hash of the decision and not by its outcome."""
    monkeypatch.setattr(propensity_fold, "MAX_WAITING", 100)
    fold = fold_of()
    for index in range(2_000):
        fold.take(example(f"d{index}", index / 1_000), index)
        assert len(waiting(fold)) <= 100
    assert fold._labels["open"].thin >= 4
    assert fold.refused["thinned"] > 0
    assert len(waiting(fold)) == len(fold._labels["open"].due) >= 30


@pytest.fixture(scope="module")
def uninterrupted() -> list[tuple[int, str, bytes]]:
    """Offset, model and bytes of every snapshot of a log that is read at one go."""
    fold, made = fold_of(), list[tuple[int, str, bytes]]()
    for offset, record in enumerate(log_of(1)):
        fold.take(record, offset)
        made += [(offset, name, value) for name, value in fold.snapshots().items()]
    assert len(made) >= 20
    return made


@pytest.mark.parametrize("killed", [0, 900, 1_037, 1_038, 1_300, 1_999])
def test_a_learner_that_starts_anew_makes_the_same_snapshots(
    uninterrupted: list[tuple[int, str, bytes]], killed: int
) -> None:
    """Killed anywhere, resumed from the snapshots there were then: the same bytes at the same versions."""
    log, fold = log_of(1), fold_of()
    latest = {name: value for offset, name, value in uninterrupted if offset < killed}
    for value in latest.values():
        fold.resume(value)
    again = []
    for offset in range(fold.since, len(log)):
        fold.take(log[offset], offset)
        again += [(offset, name, value) for name, value in fold.snapshots().items()]
    seen = {name: snapshot.decode(value).version for name, value in latest.items()}
    assert again == [one for one in uninterrupted if one[0] >= seen.get(one[1], 0)]


def test_a_restart_learns_nothing_twice_after_thinning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share that is taken is part of the snapshot."""
    monkeypatch.setattr(propensity_fold, "MAX_WAITING", 150)
    log, whole, middle = log_of(2), fold_of(), dict[str, bytes]()
    for offset, record in enumerate(log):
        whole.take(record, offset)
        made = whole.snapshots()
        middle |= made if offset < len(log) * 3 // 4 else {}
    again = fold_of()
    for value in middle.values():
        again.resume(value)
    assert again._labels["open"].thin > 0
    for offset in range(again.since, len(log)):
        again.take(log[offset], offset)
    assert again.measures() == whole.measures()


def test_a_snapshot_scores_and_names_its_version() -> None:
    """What a worker reads, and what it tells metrics."""
    fold = fold_of()
    latest: dict[str, bytes] = {}
    for offset, record in enumerate(log_of(3)):
        fold.take(record, offset)
        latest |= fold.snapshots()
    found = snapshot.decode(latest["propensity/open"])
    assert 0.0 < scorer(found, FEATURES).score([1.0, 3.0, 0.9]) < 1.0
    measures = fold.measures()["propensity/open"]
    assert found.version == measures.version == fold.versions["propensity/open"]
    assert found.meta["champion"] == measures.champion
    assert 0.0 < found.meta["log_loss"] < 1.0
    assert len(latest["propensity/open"]) < 200_000


def test_a_snapshot_of_something_else_is_refused() -> None:
    """Other kinds, labels and features, no place in the log, damaged bytes: `SnapshotError`, and nothing changed."""
    fold, latest = fold_of(), dict[str, bytes]()
    for offset, record in enumerate(log_of(4, 500)):
        fold.take(record, offset)
        latest |= fold.snapshots()
    good = snapshot.decode(latest["propensity/open"])

    def changed(**fields: Any) -> bytes:
        parts = {name: getattr(good, name) for name in good.__struct_fields__} | fields
        return snapshot.encode(Snapshot(**parts))

    assert changed() == latest["propensity/open"]
    for bad in (
        b"",
        b"{}",
        latest["propensity/open"][:-100],
        changed(kind="arms"),
        changed(model="cart/subject"),
        changed(model="propensity/churn"),
        changed(context_version=1),
        changed(data=b"{}"),
        changed(meta={}),
        changed(meta=good.meta | {"since": good.version + 1}),
        changed(meta=good.meta | {"since": -1}),
        changed(meta=good.meta | {"thin": 99}),
    ):
        fresh = fold_of()
        with pytest.raises(SnapshotError):
            fresh.resume(bad)
        assert fresh.measures()["propensity/open"].examples == 0
        assert fresh.since == 0
    with pytest.raises(SnapshotError, match="other features"):
        scorer(good, (*FEATURES, "one_more"))
