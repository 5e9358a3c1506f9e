"""What the benchmarks rest on: the same events for everybody, and a verdict that can say no."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from benchmarks import stages
from benchmarks.compare import table
from benchmarks.configurations import FEATURES, FLOW, JOB, PLAIN
from benchmarks.peers import job
from benchmarks.peers.catalog import PEERS, WORKER
from benchmarks.race import Outcome, Seen
from benchmarks.traffic import CLICKS, events
from decisioning.check import check

NOW_MS = 1_772_370_000_000


def test_the_events_are_the_same_for_everybody() -> None:
    """The same arguments give the same bytes, of about the size and with the share of decisions that is said."""
    lines = list(events(5_000, 1, NOW_MS, CLICKS))
    assert lines == list(events(5_000, 1, NOW_MS, CLICKS))
    assert len({line.message_id for line in lines}) == len(lines)
    assert 260 < sum(len(line.value) for line in lines) / len(lines) < 300
    assert 0.16 < Counter(line.event for line in lines)["Product Added"] / len(lines) < 0.20
    assert max(Counter(line.person for line in lines).values()) < 30


@pytest.mark.parametrize("configuration", [JOB, FEATURES, FLOW], ids=["job", "features", "flow"])
def test_the_configurations_are_valid(configuration: str) -> None:
    """`check` finds no error in what the worker runs with."""
    assert check(configuration, "benchmark") == []


@pytest.mark.parametrize(
    ("published", "wrong"),
    [
        (("a", "b"), []),
        (("a",), ["1 missing"]),
        (("a", "b", "b"), ["1 doubled"]),
        (("a", "a"), ["1 missing", "1 doubled"]),
        (("a", "b", "c"), ["1 nobody asked for"]),
        ((), ["2 missing"]),
    ],
)
def test_what_does_not_come_out_once_is_seen(published: tuple[str, ...], wrong: list[str]) -> None:
    """A decision that is missing, doubled or strange stands in the table."""
    seen = Seen(PLAIN, 10, {"a", "b"})
    seen.add([json.dumps({"decision_id": one}).encode() for one in published])
    assert seen.wrong(commits=False) == wrong
    assert seen.complete(commits=False) == (not any("missing" in what for what in wrong))
    assert not seen.complete(commits=True)


def test_the_job_decays_and_counts() -> None:
    """A day later a count has halved, whatever the order in which events are read."""
    body = {"messageId": "m", "userId": "u", "event": "Product Added", "timestamp": "2026-03-01T00:00:00Z"}
    first, later = (
        job.decode(json.dumps(body | {"timestamp": f"2026-03-0{day}T00:00:00Z"}).encode()) for day in (1, 2)
    )
    forward, backward = job.nobody(), job.nobody()
    assert [job.fold(forward, event) for event in (first, later)] == [job.ADDED, job.ADDED]
    for event in (later, first):
        job.fold(backward, event)
    assert forward[1 + job.ADDED] == pytest.approx(1.5)
    assert forward == pytest.approx(backward)
    assert job.unpacked(job.packed(forward)) == forward


def test_the_table_has_medians_and_says_what_is_wrong() -> None:
    """The fastest first, costs beside ours."""
    outcomes = [
        Outcome(WORKER.name, 100, 50_000.0, 10.0, 100.0, ()),
        Outcome(PEERS[1].name, 100, 20_000.0, 25.0, 400.0, ("3 missing",)),
        Outcome(PEERS[1].name, 100, 30_000.0, 35.0, 400.0, ()),
    ]
    lines = table(outcomes)
    assert lines[2] == f"| {WORKER.name} | 50,000 | 10.0 | 10.0 to 10.0 | 1.00 | 100 | 1 | all there, once |"
    assert lines[3] == f"| {PEERS[1].name} | 25,000 | 30.0 | 25.0 to 35.0 | 3.00 | 400 | 2 | 3 missing |"


def test_cpu_is_told_apart_by_stage() -> None:
    """The innermost frame that is known decides; who waits does not count; nothing is lost on the way."""
    outer = "thread (7): MainThread;run (uvloop/__init__.py:92);Owner._work (streams/owner.py:1)"
    profile = f"""\
{outer};Partition.step (streams/partition.py:1);decode (decisioning/events.py:9);match (re.py:3) 3
{outer};Partition._load (streams/partition.py:1);View.read (streams/view.py:2);execute (redis/client.py:5) 2
{outer};Engine.step (decisioning/engine.py:3);fold (features/rows.py:4) 4
{outer} 1
thread (8): Thread-1;ServiceThread._start_thread (mode/threads.py:2);EpollSelector.select (selectors.py:468) 500
thread (9): web;WebServer._run (streams/web.py:2) 500
"""
    found = stages.shares(profile)
    assert {stage: share for stage, share in found.items() if share} == {
        "decode": 0.3, "read from Redis": 0.2, "gather, fresh, fold": 0.4, stages.REST: 0.1,
    }  # fmt: skip
    lines = stages.table({"job": (profile, 20.0)})
    assert lines[2] == "| decode | 6.0 |"
    assert lines[-1] == "| together | 20.0 |"
