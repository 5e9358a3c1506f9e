"""Metrics: the names people build dashboards on, and counting what a step says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streams.metrics import COUNTED, Metrics

ROOT = Path(__file__).resolve().parent.parent

PROMISED = {
    "decisioning_events_total": ("type",),
    "decisioning_decisions_total": ("campaign", "action", "reason", "channel"),
    "decisioning_decision_delay_seconds": ("campaign",),
    "decisioning_batch_seconds": ("stage",),
    "decisioning_lag_records": ("partition",),
    "decisioning_timers_pending": ("partition",),
    "decisioning_transaction_seconds": (),
    "decisioning_view_behind_steps": ("partition",),
    "decisioning_dead_letters_total": ("reason",),
    "decisioning_duplicates_total": (),
    "decisioning_misrouted_total": (),
    "decisioning_reward_total": ("campaign", "event"),
    "decisioning_fenced_total": (),
    "decisioning_recovery_seconds": (),
}


def _shown(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_names_and_labels_are_the_promised_ones() -> None:
    """Dashboards and alerts of users hang on them."""
    metrics = Metrics(CollectorRegistry())
    declared = {
        f"decisioning_{name.removeprefix('decisioning_')}": labels
        for name, labels in {
            **{name: labels for name, (labels, _) in COUNTED.items()},
            **{
                (metric._name if metric._type != "counter" else f"{metric._name}_total"): metric._labelnames
                for metric in (
                    metrics.decision_delay_seconds,
                    metrics.batch_seconds,
                    metrics.transaction_seconds,
                    metrics.recovery_seconds,
                    metrics.lag_records,
                    metrics.timers_pending,
                    metrics.view_behind_steps,
                    metrics.fenced,
                )
            },
        }.items()
    }
    assert declared.items() >= PROMISED.items()


def test_counting_what_a_step_says() -> None:
    """A name with its label values becomes a series; two steps add up."""
    metrics = Metrics(CollectorRegistry())
    step = {("events_total", "track"): 3, ("decisions_total", "cart", "suppress", "expired", ""): 1}
    metrics.count(step)
    metrics.count({**step, ("duplicates_total",): 2})
    shown = _shown(metrics)
    assert 'decisioning_events_total{type="track"} 6.0' in shown
    assert 'decisioning_decisions_total{action="suppress",campaign="cart",channel="",reason="expired"} 2.0' in shown
    assert "decisioning_duplicates_total 2.0" in shown


def test_a_negative_reward_stops_nothing() -> None:
    """A refund as a goal's value comes from outside; it must not stop the partition."""
    metrics = Metrics(CollectorRegistry())
    metrics.count({("reward_total", "cart", "Order Completed"): -5.0})
    assert "reward_total{" not in _shown(metrics)


@pytest.mark.parametrize("counts", [{("typo_total",): 1}, {("events_total",): 1}, {("duplicates_total", "x"): 1}])
def test_a_wrong_name_or_number_of_labels_is_a_mistake_in_the_code(
    counts: dict[tuple[str, ...], float],
) -> None:
    """It raises at once, so that no test passes over it."""
    with pytest.raises((KeyError, ValueError)):
        Metrics(CollectorRegistry()).count(counts)


def test_every_counter_of_the_core_exists() -> None:
    """What the core counts anywhere in its code is declared: no rare branch raises in production only."""
    code = "".join(path.read_text() for path in (ROOT / "decisioning").glob("*.py"))
    named = set(re.findall(r'count(?:s\[|\(\s*)"(\w+_total)"', code))
    assert named
    assert named <= set(COUNTED)


def test_stages_show_before_they_run() -> None:
    """A rate over an absent series is empty, over 0 it is 0."""
    shown = _shown(Metrics(CollectorRegistry()))
    for stage in ("fetch", "decode", "fold", "decide", "commit", "publish"):
        assert f'decisioning_batch_seconds_count{{stage="{stage}"}} 0.0' in shown


def test_a_lost_partition_is_forgotten() -> None:
    """Its gauges would stay at their last value for ever and count twice, here and at the new owner."""
    metrics = Metrics(CollectorRegistry())
    for partition in ("3", "4"):
        metrics.lag_records.labels(partition).set(7)
    metrics.forget(3)
    metrics.forget(5)
    shown = _shown(metrics)
    assert 'lag_records{partition="3"}' not in shown
    assert 'lag_records{partition="4"} 7.0' in shown


def test_the_process_shows_itself() -> None:
    """Without a registry of the caller's, CPU and memory of the process are there too."""
    assert "process_cpu_seconds_total" in _shown(Metrics())
