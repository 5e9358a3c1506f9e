"""What was learned: how the step is given it, how a decision asks it, and how a backtest learns on its way.

The policy of a choice is called `<campaign>/<choice>`. Its snapshot holds statistics alone; the rule that makes
probabilities of them (algorithm, explore, horizon) is the configuration's, applied by whoever decides. So a change of
the rule holds at once, and whoever has the snapshot and the rule has the probabilities, to the bit.

As long as no outcome was ever seen, a policy has nothing to say, and choices are what they are without learning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bandits.arms import ArmModel, ReadyPolicy
from bandits.learner import Learner
from bandits.policy import Floats
from bandits.spec import PolicySpec
from decisioning import contexts
from decisioning.effects import Outgoing
from decisioning.plan import Plan

CHOICES = ("holdout", "channel", "send_time")
"""Choices of every campaign; its variant slots are choices, too."""


class Learned:
    """A policy's model as of one snapshot, made ready for a rule when a decision first asks.

    Parameters
    ----------
    version
        Offset in `examples` up to which it has seen them.
    model
        Must not change any more before the last question was asked.
    """

    __slots__ = ("_model", "_ready", "version")

    def __init__(self, version: int, model: ArmModel) -> None:
        self.version = version
        self._model = model
        self._ready: dict[PolicySpec, ReadyPolicy] = {}

    @property
    def has_outcomes(self) -> bool:
        """Whether any outcome was seen: without, there is nothing to prefer an arm for."""
        return bool(self._model._moments.bucket_r.any())  # noqa: SLF001

    def ready(self, spec: PolicySpec) -> ReadyPolicy:
        """The policy that a rule makes of it."""
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
    """

    __slots__ = ("_learned",)

    def __init__(self, learned: Mapping[str, Learned] | None = None) -> None:
        self._learned = {} if learned is None else learned

    def of(self, policy: str) -> Learned | None:
        """The model of a policy, None where there is none."""
        return self._learned.get(policy)


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
        """Probability of each eligible arm of a choice; None where nothing was learned, or there is nothing to choose.

        Examples
        --------
        Without models every choice is what it is without learning.
        """
        learned = self.models.of(f"{self.plan.id}/{choice}")
        spec = self.plan.spec
        if learned is None or len(arms) == 1 or spec.algorithm == "uniform" or not learned.has_outcomes:
            return None
        if self._vector is None:
            self._vector = contexts.vector_of(self.context)
        found = learned.ready(spec).probabilities(arms, self._vector)
        self.versions[f"{self.plan.id}/{choice}"] = learned.version
        return dict(zip(arms, found.tolist(), strict=True))


def learner_of(plans: Mapping[str, Plan]) -> Learner:
    """A learner of all policies of these campaigns; examples of others are refused and counted."""
    return Learner(contexts.WIDTH, _featurise, _spec_of(plans), contexts.VERSION)


class Learning:
    """Learns from each step's examples before the next one: what a backtest does.

    Parameters
    ----------
    plans
        The campaigns.

    Attributes
    ----------
    models
        What was learned so far; given to the next step.
    """

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._learner = learner_of(plans)
        self._learned: dict[str, Learned] = {}
        self.models = Models(self._learned)

    def take(self, examples: Iterable[Outgoing]) -> None:
        """Learn from examples, in the order in which a worker publishes them."""
        changed: set[str] = set()
        for example in examples:
            policy = self._learner.take(example.value, self._learner.offset)
            if policy is not None:
                changed.add(policy)
        for policy in changed:
            model = self._learner.model(policy)
            assert model is not None, "a policy that changed has a model"
            self._learned[policy] = Learned(self._learner.versions[policy], model)

    def snapshots(self) -> dict[str, bytes]:
        """Policy -> snapshot, of those that changed since the last call."""
        return self._learner.snapshots()


def _featurise(policy: str, arm: str, context: Mapping[str, float]) -> Floats:
    """The same numbers for every arm: what differs between arms is each arm's own model."""
    del policy, arm
    return contexts.vector_of(context)


def _spec_of(plans: Mapping[str, Plan]) -> Callable[[str], PolicySpec | None]:
    specs = {f"{plan.id}/{choice}": plan.spec for plan in plans.values() for choice in (*CHOICES, *plan.slots)}
    return specs.get
