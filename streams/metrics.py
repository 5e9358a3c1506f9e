"""Everything we count and time, in one place, as Prometheus sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector

NAMESPACE: Final = "decisioning"
STAGES: Final = ("fetch", "decode", "fold", "decide", "commit", "publish")

# From "at once" to "somebody should look": the promise is one second.
DELAY_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGE_BUCKETS_S: Final = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
TRANSACTION_BUCKETS_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
RECOVERY_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

# What the step counts: name -> (labels, help). All else is observed by the shell itself.
COUNTED: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "events_total": (("type",), "Events accepted, by type of call."),
    "decisions_total": (
        ("campaign", "action", "reason", "channel"),
        "Decisions, by first reason and channel.",
    ),
    "dead_letters_total": (("reason",), "Records that could not be events."),
    "duplicates_total": ((), "Events dropped because their person had sent the same message id already."),
    "misrouted_total": ((), "Records forwarded because their key belongs to another partition."),
    "clamped_timestamps_total": ((), "Event times replaced by the record's own, too far from it to be true."),
    "expression_errors_total": (("where",), "Rules that met missing or mistyped data and counted as false."),
    "asleep_variants_total": (
        ("campaign", "slot", "reason"),
        "Variants left out: their text or rule did not work out, or broke a guardrail.",
    ),
    "erased_events_total": ((), "Events of erased people, dropped."),
    "expired_profiles_total": (
        (),
        "People forgotten because nothing was heard of them for as long as profiles are kept.",
    ),
    "dropped_traits_total": ((), "Traits that found no room: too large, or more than a person may have."),
    "trimmed_events_total": ((), "Trigger events too large to be kept whole: rules and texts see their short values."),
    "unattributed_rewards_total": ((), "Outcomes of decisions that are not or no longer known."),
    "late_rewards_total": (("campaign",), "Outcomes that came after their window, kept as corrections."),
    "reward_total": (("campaign", "event"), "Rewards credited to decisions."),
    "penalties_total": (("campaign", "event"), "Negative rewards: what unsubscriptions and complaints cost."),
    "clipped_rewards_total": (("campaign",), "Goals that were worth more than `clip` lets count."),
    "forgotten_examples_total": (("campaign",), "Examples taken back because their person was erased."),
}


class Metrics:
    """The metrics of one worker.

    Parameters
    ----------
    registry
        Where they are registered; by default a new one that has the process's own figures too (CPU,
        memory, garbage collection).

    Attributes
    ----------
    registry
        What `/metrics` shows.
    decision_delay_seconds, batch_seconds, transaction_seconds, recovery_seconds
        Histograms in seconds.
    lag_records, timers_pending, view_behind_steps
        Gauges of a partition; `forget` drops them when the partition leaves this worker.
    lift, lift_mismatch
        Gauges of a campaign, set by whoever learns from `examples`.
    fenced
        Counter: a newer owner took a partition from us.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            GCCollector(registry=registry)
        self.registry = registry
        self._counted = {
            name: Counter(name, text, labels, namespace=NAMESPACE, registry=registry)
            for name, (labels, text) in COUNTED.items()
        }
        self.decision_delay_seconds = self._histogram(
            "decision_delay_seconds", "Publish time minus the time to fire.", ("campaign",), DELAY_BUCKETS_S
        )
        self.batch_seconds = self._histogram(
            "batch_seconds", "Time of one micro-batch in a stage.", ("stage",), STAGE_BUCKETS_S
        )
        self.transaction_seconds = self._histogram(
            "transaction_seconds", "Begin to end of a Kafka transaction.", (), TRANSACTION_BUCKETS_S
        )
        self.recovery_seconds = self._histogram(
            "recovery_seconds", "Assignment of a partition until its first step.", (), RECOVERY_BUCKETS_S
        )
        self.lag_records = self._gauge("lag_records", "Records of a partition not yet read.")
        self.timers_pending = self._gauge("timers_pending", "Timers of a partition that have not fired.")
        self.view_behind_steps = self._gauge("view_behind_steps", "Committed steps that Redis does not have yet.")
        self.lift = self._gauge(
            "lift",
            "Share of people who reached the goal, treatment minus holdout; low to high hold at 95 % over all looks.",
            "campaign",
            "bound",
        )
        self.lift_mismatch = self._gauge(
            "lift_mismatch",
            "1 where the sizes of treatment and holdout contradict the configured share: do not trust the lift.",
            "campaign",
        )
        self.fenced = self._counter("fenced_total", "Times a newer owner took a partition from us.")
        self._of_learning()
        for stage in STAGES:
            self.batch_seconds.labels(stage)  # a stage that never ran shows as 0, not as absent

    def _of_learning(self) -> None:
        self.model_version = self._gauge("model_version", "Version of a model that this worker decides with.", "model")
        self.policy_entropy = self._gauge(
            "policy_entropy", "Bits of the choice between all arms for a person of whom nothing is known.", "policy"
        )
        self.model_logloss = self._gauge(
            "model_logloss", "Log-loss of a propensity model on examples it had not learned yet.", "model"
        )
        self.drift = self._counter("drift", "Alarms that a propensity model predicts worse than it did.", "model")
        self.snapshots_refused = self._counter(
            "snapshots_refused", "Snapshots that cannot be used, by who had to: the last good one stays.", "by"
        )
        self.snapshot_prepare_seconds = self._histogram(
            "snapshot_prepare_seconds", "Time to make a snapshot ready, beside the main loop.", (), STAGE_BUCKETS_S
        )
        self.examples_learned = self._counter("examples_learned", "Examples and corrections learned from.")
        self.examples_refused = self._counter("examples_refused", "Examples not learned from.", "reason")
        self.snapshots_published = self._counter("snapshots_published", "Snapshots published to models.")
        text = "Examples not yet learned from; 0 where another worker learns."
        self.learner_lag_records = Gauge("learner_lag_records", text, namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labels, namespace=NAMESPACE, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels or ("partition",), namespace=NAMESPACE, registry=self.registry)

    def forget_model(self, model: str) -> None:
        """Drop the gauges of a model that no decision is made with any more."""
        self.model_version.remove_by_labels({"model": model})
        self.policy_entropy.remove_by_labels({"policy": model})

    def count(self, counts: Mapping[tuple[str, ...], float]) -> None:
        """Add what a step counted: (name, label values…) -> increment.

        Raises
        ------
        KeyError, ValueError
            A name that is not in `COUNTED`, or another number of labels than it has: a mistake in the code.
        """
        for (name, *values), increment in counts.items():
            if name not in self._counted:
                raise KeyError(f"no counter named {name!r}; add it to COUNTED in {__name__}")
            counter = self._counted[name]
            if increment > 0:  # a reward may be negative (a refund); a Prometheus counter cannot go back
                (counter.labels(*values) if values or COUNTED[name][0] else counter).inc(increment)

    def forget(self, partition: int) -> None:
        """Drop the gauges of a partition that another worker reports from now on."""
        for gauge in (self.lag_records, self.timers_pending, self.view_behind_steps):
            gauge.remove_by_labels({"partition": str(partition)})
