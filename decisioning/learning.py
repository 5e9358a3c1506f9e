"""What was learned: how the step is given it, how a decision asks it, and how a backtest learns on its way.

The policy of a choice is called `<campaign>/<choice>`. Its snapshot holds statistics alone; the rule that makes
probabilities of them (algorithm, explore, horizon) is the configuration's, applied by whoever decides. So a change of
the rule holds at once, and whoever has the snapshot and the rule has the probabilities, to the bit.

As long as no outcome was ever seen, a policy has nothing to say, and choices are what they are without learning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bandits.arms import ArmModel
from bandits.learner import Learner, model_of, outcomes_of
from bandits.linear import LinearModel, ReadyLinear
from bandits.policy import Floats
from bandits.propensity_fold import PREFIX
from bandits.ready import ReadyPolicy
from bandits.snapshot import SnapshotError, decode
from bandits.spec import PolicySpec
from decisioning import contexts, durations, slots
from decisioning.effects import Outgoing
from decisioning.learners import Learners
from decisioning.plan import Plan
from decisioning.scoring import Scored

CHOICES: Final = ("holdout", "channel", "send_time")
"""Choices of every campaign; its variant slots are choices, too."""
EXAMPLES_AT_ONCE: Final = 64


class Learned:
    """A policy's model as of one snapshot, made ready for a rule when a decision first asks.

    Parameters
    ----------
    version
        Offset in `examples` up to which it has seen them.
    model
        Must not change before it was made ready.
    outcomes
        How many outcomes it has seen: without any, there is nothing to prefer an arm for.
    """

    __slots__ = ("_model", "_ready", "outcomes", "version")

    def __init__(self, version: int, model: ArmModel | LinearModel, outcomes: int) -> None:
        self.version = version
        self.outcomes = outcomes
        self._model = model
        self._ready: dict[PolicySpec, ReadyPolicy | ReadyLinear] = {}

    @staticmethod
    def of(value: bytes) -> tuple[str, Learned]:
        """The policy's name and what a snapshot, as `models` has it, knows.

        Raises
        ------
        SnapshotError
            If it cannot be read, or its numbers are not those of `contexts` and `slots`.
        """
        snapshot = decode(value)
        model = model_of(snapshot)
        width, wanted = (model.width, contexts.WIDTH) if isinstance(model, ArmModel) else (model.dim, slots.DIM)
        if (width, snapshot.context_version) != (wanted, contexts.VERSION):
            raise SnapshotError(
                f"snapshot of {snapshot.model} has {width} numbers of context version {snapshot.context_version}; "
                f"expected {wanted} of version {contexts.VERSION}"
            )
        return snapshot.model, Learned(snapshot.version, model, outcomes_of(snapshot))

    @property
    def is_ready(self) -> bool:
        """Whether a decision has asked: what it answers does not change any more, whatever the model learns."""
        return bool(self._ready)

    def ready(self, spec: PolicySpec) -> ReadyPolicy | ReadyLinear:
        """The policy that a rule makes of it: over arms by name, or over rows of features."""
        found = self._ready.get(spec)
        if found is None:
            found = self._ready[spec] = self._model.ready(spec)
        return found


class Models:
    """What was learned, by policy; empty: nothing was.

    Parameters
    ----------
    learned
        Policy -> its model. The step only reads it.
    scored
        Label -> its propensity model, likewise.
    """

    __slots__ = ("_learned", "_scored")

    def __init__(
        self, learned: Mapping[str, Learned] | None = None, scored: Mapping[str, Scored] | None = None
    ) -> None:
        self._learned = {} if learned is None else learned
        self._scored = {} if scored is None else scored

    def __bool__(self) -> bool:
        """Whether anything was learned."""
        return bool(self._learned)

    def of(self, policy: str) -> Learned | None:
        """The model of a policy, None where there is none."""
        return self._learned.get(policy)

    def scored(self, label: str) -> Scored | None:
        """The propensity model of a label, None where there is none."""
        return self._scored.get(label)

    def versions_of(self, labels: Iterable[str]) -> dict[str, int]:
        """Versions of propensity models, by model."""
        return {PREFIX + label: self._scored[label].version for label in labels}


UNLEARNED = Models()


@dataclass(slots=True)
class Advice:
    """What was learned, as one decision asks it.

    Attributes
    ----------
    models, plan, context
        What is known, for which campaign, and of whom: the named context, empty for a neutral one.
    versions
        Policy -> version of the model that was asked and had something to say.
    """

    models: Models
    plan: Plan
    context: Mapping[str, float]
    versions: dict[str, int] = field(default_factory=dict)
    _vector: Floats | None = None

    def probabilities(self, choice: str, arms: Sequence[str]) -> dict[str, float] | None:
        """Probability of each eligible arm of a choice; None where nothing was learned or there is no choice."""
        learned = self._asked(choice, arms) if self.models else None
        ready = None if learned is None else learned.ready(self.plan.spec)
        if learned is None or not isinstance(ready, ReadyPolicy):
            return None
        if self._vector is None:
            self._vector = contexts.vector_of(self.context)
        return self._noted(choice, learned, arms, ready.probabilities(arms, self._vector))

    def hours(
        self, choice: str, arms: Sequence[str], base: int, shares: Mapping[str, float]
    ) -> dict[str, float] | None:
        """The same for hours to send at, which are told apart by what is known of each and not by the context.

        Parameters
        ----------
        base, shares
            Hour of the week in which `now` lies, and the person's own habit by arm: see `slots`.
        """
        learned = self._asked(choice, arms)
        ready = None if learned is None else learned.ready(self.plan.spec)
        if learned is None or not isinstance(ready, ReadyLinear):
            return None
        return self._noted(choice, learned, arms, ready.probabilities(slots.rows_of(arms, base, shares)))

    def _asked(self, choice: str, arms: Sequence[str]) -> Learned | None:
        """The model that has something to say about a choice."""
        if len(arms) == 1 or self.plan.spec.algorithm == "uniform":
            return None
        learned = self.models.of(f"{self.plan.id}/{choice}")
        return learned if learned is not None and learned.outcomes else None

    def _noted(self, choice: str, learned: Learned, arms: Sequence[str], found: Floats) -> dict[str, float]:
        self.versions[f"{self.plan.id}/{choice}"] = learned.version
        return dict(zip(arms, found.tolist(), strict=True))


def rule_of(spec: PolicySpec) -> dict[str, Any]:
    """What makes a model of examples, and probabilities of the model, by name."""
    half_life = None if spec.half_life_s is None else durations.spell(round(spec.half_life_s * 1e3))
    found = {"algorithm": spec.algorithm, "explore": spec.explore, "half_life": half_life, "horizon": spec.horizon}
    return {name: value for name, value in found.items() if value is not None}


def learner_of(plans: Mapping[str, Plan], labels: Sequence[str] = ()) -> Learners:
    """A learner of all policies of these campaigns and of propensity models; others' examples are refused, counted."""
    specs = {f"{plan.id}/{choice}": plan.spec for plan in plans.values() for choice in (*CHOICES, *plan.slots)}
    timed = {f"{plan.id}/send_time" for plan in plans.values() if plan.campaign.send_time.within_ms}
    return Learners(_learner(specs, timed), labels)


def learner_of_one(policy: str, spec: PolicySpec) -> Learner:
    """A learner of a policy that made a choice once; all other examples are refused."""
    return _learner({policy: spec}, {policy} if policy.endswith("/send_time") else set())


def _learner(specs: Mapping[str, PolicySpec], timed: set[str]) -> Learner:
    """A learner of policies over arms by name, and of those over hours to send at."""

    def features(policy: str, _arm: str, context: Mapping[str, float]) -> Floats:
        return slots.row_of(context) if policy in timed else contexts.vector_of(context)

    dims = dict.fromkeys(timed, slots.DIM)
    return Learner(contexts.WIDTH, features, specs.get, contexts.VERSION, dims.get)


class Learning:
    """Learns from each step's examples before the next one: what a backtest does.

    What decides is made ready anew where an outcome came. An example that brought nothing yet changes next to nothing:
    it waits until one example in `EXAMPLES_AT_ONCE` is new.

    Parameters
    ----------
    plans
        The campaigns.
    labels
        Of propensity models; none by default.

    Attributes
    ----------
    models
        What was learned so far; given to the next step.
    """

    def __init__(self, plans: Mapping[str, Plan], labels: Sequence[str] = ()) -> None:
        self._learner = learner_of(plans, labels)
        self._learned: dict[str, Learned] = {}
        self._scored: dict[str, Scored] = {}
        self._seen: Counter[str] = Counter()
        self._new: Counter[str] = Counter()
        self.models = Models(self._learned, self._scored)

    def take(self, examples: Iterable[Outgoing]) -> None:
        """Learn from examples, in the order in which a worker publishes them."""
        changed: Counter[str] = Counter()
        for example in examples:
            policy = self._learner.take(example.value, self._learner.offset)
            changed.update([policy] if policy is not None else [])
        scored = self._learner.propensities.latest
        for name in changed.keys() & scored.keys():
            self._scored[name.removeprefix(PREFIX)] = Scored.of(decode(scored[name]))
            del changed[name]
        for policy, count in changed.items():
            self._seen[policy] += count
            self._new[policy] += count
            held, outcomes = self._learned.get(policy), self._learner.outcomes[policy]
            few = self._new[policy] * EXAMPLES_AT_ONCE < self._seen[policy]
            if held is not None and held.is_ready and held.outcomes == outcomes and few:
                continue
            model = self._learner.model(policy)
            assert model is not None, "a policy that changed has a model"
            self._learned[policy] = Learned(self._learner.versions[policy], model, outcomes)
            self._new[policy] = 0

    def snapshots(self) -> dict[str, bytes]:
        """Model -> snapshot, of those that changed since the last call."""
        return self._learner.snapshots()
