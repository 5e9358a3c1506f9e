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
from bandits.propensity_fold import PREFIX
from bandits.snapshot import decode
from bandits.spec import PolicySpec
from decisioning import contexts
from decisioning.effects import Outgoing
from decisioning.learners import Learners
from decisioning.plan import Plan
from decisioning.scoring import Scored

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
    scored
        Label -> its propensity model, likewise.
    """

    __slots__ = ("_learned", "_scored")

    def __init__(
        self, learned: Mapping[str, Learned] | None = None, scored: Mapping[str, Scored] | None = None
    ) -> None:
        self._learned = {} if learned is None else learned
        self._scored = {} if scored is None else scored

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


def learner_of(plans: Mapping[str, Plan], labels: Sequence[str] = ()) -> Learners:
    """A learner of all policies of these campaigns and of propensity models; others' examples are counted, no more."""
    return Learners(Learner(contexts.WIDTH, _featurise, _spec_of(plans), contexts.VERSION), labels)


class Learning:
    """Learns from each step's examples before the next one: what a backtest does.

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
        self._learners = learner_of(plans, labels)
        self._offset = 0
        self._made: dict[str, bytes] = {}  # of propensity models
        self._learned: dict[str, Learned] = {}
        self._scored: dict[str, Scored] = {}
        self.models = Models(self._learned, self._scored)

    def take(self, examples: Iterable[Outgoing]) -> None:
        """Learn from examples, in the order in which a worker publishes them."""
        changed: set[str] = set()
        for example in examples:
            name = self._learners.take(example.value, self._offset)
            self._offset += 1
            if name is not None:
                changed.add(name)
        policies = self._learners.policies
        for name in changed:
            model = policies.model(name)
            if model is not None:
                self._learned[name] = Learned(policies.versions[name], model)
        for name, snapshot in self._learners.propensities.snapshots().items():
            self._scored[name.removeprefix(PREFIX)] = Scored.of(decode(snapshot))
            self._made[name] = snapshot

    def snapshots(self) -> dict[str, bytes]:
        """Model -> snapshot, of those that changed since the last call."""
        made, self._made = self._made, {}
        return self._learners.snapshots() | made


def _featurise(policy: str, arm: str, context: Mapping[str, float]) -> Floats:
    """The same numbers for every arm: what differs between arms is each arm's own model."""
    del policy, arm
    return contexts.vector_of(context)


def _spec_of(plans: Mapping[str, Plan]) -> Callable[[str], PolicySpec | None]:
    specs = {f"{plan.id}/{choice}": plan.spec for plan in plans.values() for choice in (*CHOICES, *plan.slots)}
    return specs.get
