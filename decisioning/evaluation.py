"""Policies judged by what was logged: choices from `examples` or a decision log, and what another policy would do.

A policy that learns is replayed: the log is cut into blocks in its order, and each block is decided with what the
blocks before it have taught. Its value is that of a policy that learned on the way, and no row is judged by a model
that has seen it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import orjson

from bandits.arms import MAX_WIDTH, ArmModel
from bandits.logged import Logged
from bandits.policy import Floats
from bandits.ready import ReadyPolicy
from bandits.spec import ALGORITHMS, PolicySpec

BLOCKS: Final = 20
HOLDOUT: Final = "holdout"
_CERTAIN: Final = 1.0 - 1e-9
_LARGEST: Final = 1e12  # of a reward or a number of context


class LogError(ValueError):
    """A log that cannot be used; says where."""


@dataclass(slots=True)
class Row:
    """One logged choice; `eligible` has the probability of every arm where the log tells it."""

    arm: str
    propensity: float
    reward: float
    names: tuple[str, ...]
    context: array[float]
    at_s: float
    eligible: dict[str, float] | None = None


@dataclass(slots=True)
class Choices:
    """Logged choices by `<campaign>/<choice>`, each in the order of the log.

    Attributes
    ----------
    rows
        Policy -> decision id -> the choice.
    orphans
        Corrections of examples that are not in the log, and examples of decisions that are not.
    """

    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    orphans: int = 0
    _names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def example(self, record: Mapping[str, Any], at_s: float) -> None:
        """Take in a record of `examples`.

        Raises
        ------
        LogError
            A field is missing, of another type or out of range; or the example was there before.
        """
        policy, decision = _text(record, "policy"), _text(record, "decision_id")
        if record.get("correction") is True:
            found = self.rows.get(policy, {}).get(decision)
            if found is None:
                self.orphans += 1
            else:
                found.reward = _bounded("reward", found.reward + _number(record, "delta"))
            return
        rows = self.rows.setdefault(policy, {})
        if decision in rows:
            raise LogError(f"decision {decision} has a second example of {policy}; leave out what is there twice")
        rows[decision] = self.row(record, at_s)

    def row(self, record: Mapping[str, Any], at_s: float) -> Row:
        """Read what every log has: arm, propensity, reward, perhaps a context.

        Raises
        ------
        LogError
            As `example`.
        """
        propensity = _number(record, "propensity")
        if not 0.0 < propensity <= 1.0:
            raise LogError(f"propensity is {propensity:g}; expected more than 0 and at most 1")
        context = record.get("context") or {}
        if not isinstance(context, Mapping):
            raise LogError(f'context is {_shown(context)}; expected an object of numbers, such as {{"fatigue": 0.2}}')
        names = tuple(context)
        names = self._names.setdefault(names, names)
        numbers = array("d", [_number(context, name) for name in names])
        return Row(_text(record, "arm"), propensity, _number(record, "reward"), names, numbers, at_s)

    def narrow(self, eligible: Mapping[tuple[str, str], dict[str, float]]) -> None:
        """Add what a decision log knows: the arms that were eligible, by (decision id, policy); drop what it lacks."""
        for policy, rows in self.rows.items():
            for decision in list(rows):
                arms = eligible.get((decision, policy))
                if arms is None:
                    del rows[decision]
                    self.orphans += 1
                elif rows[decision].arm not in arms:
                    raise LogError(
                        f"decision {decision} chose {rows[decision].arm} of {policy}, not eligible in the log"
                    )
                else:
                    rows[decision].eligible = arms

    def select(self, campaign: str | None, choice: str | None) -> dict[str, list[Row]]:
        """Policies of a campaign and choice, or all in which something was chosen; the holdout only where asked for."""
        found = {}
        for policy, rows in self.rows.items():
            of_campaign, _, of_choice = policy.rpartition("/")
            if campaign not in {None, of_campaign} or choice not in {None, of_choice}:
                continue
            if choice is None and (of_choice == HOLDOUT or len({row.arm for row in rows.values()}) == 1):
                continue
            if rows:
                found[policy] = list(rows.values())
        return found


def eligible_arms(record: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, float]]:
    """Of a record of `decision-log`: (decision id, policy) -> arm -> probability."""
    decision, campaign = _text(record, "decision_id"), record.get("campaign")
    arms = record.get("arms") or {}
    if not isinstance(arms, Mapping) or not all(isinstance(each, Mapping) for each in arms.values()):
        raise LogError(f"arms is {_shown(arms)}; expected the eligible arms of each choice with their probabilities")
    return {
        (decision, f"{campaign}/{choice}"): {arm: _number(each, arm) for arm in each} for choice, each in arms.items()
    }


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy to be judged: one that learns, or fixed probabilities, or one arm.

    Attributes
    ----------
    name
        As it was asked for.
    learns
        How, for one that learns.
    fixed
        Arm -> share, divided among those eligible; a single arm where it is always that one.
    """

    name: str
    learns: PolicySpec | None = None
    fixed: Mapping[str, float] | None = None

    @staticmethod
    def of(text: str) -> Candidate:
        """Read `uniform`, `arm:ID`, `thompson`, `thompson:explore=0.1,half_life=7d`, or JSON.

        As JSON: an algorithm as in a configuration's `policy`, or arms with their shares.

        Raises
        ------
        ValueError
            It is none of these.

        Examples
        --------
        >>> Candidate.of("squarecb:explore=0.1").learns.explore
        0.1
        >>> Candidate.of('{"plain": 0.3, "offer": 0.7}').fixed
        {'plain': 0.3, 'offer': 0.7}
        """
        name, _, rest = text.partition(":")
        if name == "arm" and rest:
            return Candidate(text, fixed={rest: 1.0})
        if text.startswith("{"):
            return Candidate(text, **_of_json(text))
        if name not in ALGORITHMS:
            raise ValueError(f"{text!r} is no policy; expected arm:ID, {', '.join(ALGORITHMS)}, or JSON")
        spec: dict[str, Any] = {"algorithm": name}
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            spec[key.strip()] = _value(value.strip())
        return Candidate(text, PolicySpec.of(spec))

    def concerns(self, arms: Iterable[str]) -> bool:
        """Whether it has something to say where these are the arms."""
        return self.fixed is None or not set(self.fixed).isdisjoint(arms)


def _of_json(text: str) -> dict[str, Any]:
    try:
        spec = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{text!r} is not JSON: {error}") from None
    if "algorithm" in spec:
        return {"learns": PolicySpec.of(spec)}
    shares = [value for value in spec.values() if isinstance(value, int | float) and value >= 0.0]
    if not spec or len(shares) < len(spec) or not 0.0 < sum(shares) <= _LARGEST:
        raise ValueError(f"{text!r} is no policy; expected an algorithm, or arms with their shares of the decisions")
    return {"fixed": spec}


def _value(text: str) -> Any:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def arm_names(rows: Sequence[Row]) -> list[str]:
    """All arms that were ever eligible, as far as the log tells, sorted."""
    return sorted({arm for row in rows for arm in (row.eligible or (row.arm,))})


def logged(rows: Sequence[Row]) -> tuple[Logged, list[str]]:
    """The rows as columns, and the arms in the order of these; all that were ever eligible."""
    arms = arm_names(rows)
    column = {arm: place for place, arm in enumerate(arms)}
    propensities = None
    if all(row.eligible is not None for row in rows):
        propensities = np.zeros((len(rows), len(arms)))
        for place, row in enumerate(rows):
            for arm, probability in (row.eligible or {}).items():
                propensities[place, column[arm]] = probability
    columns = {
        "arm": [row.arm for row in rows],
        "arms": arms,
        "propensity": [row.propensity for row in rows],
        "reward": [row.reward for row in rows],
        "context": contexts(rows),
        "propensities": propensities,
    }
    return Logged.of(columns), arms


def contexts(rows: Sequence[Row]) -> Floats | None:
    """Numbers of the contexts by name, absent ones 0: the 24 that differ most often where there are more; or None."""
    names = sorted({name for row in {row.names: row for row in rows}.values() for name in row.names})
    if not names:
        return None
    column = {name: place for place, name in enumerate(names)}
    found = np.zeros((len(rows), len(names)))
    for place, row in enumerate(rows):
        found[place, [column[name] for name in row.names]] = row.context
    if len(names) > MAX_WIDTH:
        differs = (found != np.median(found, axis=0)).sum(axis=0)
        found = found[:, np.sort(np.argsort(-differs, kind="stable")[:MAX_WIDTH])]
    return found


def probabilities(candidate: Candidate, rows: Sequence[Row], arms: list[str], context: Floats | None) -> Floats:
    """What a candidate would have done in each row.

    Where the log does not say which arms were eligible, all that it has are taken for so; but in a row of propensity 1
    only the chosen one. Where none of a fixed policy's arms was eligible, it does what was done.

    Returns
    -------
    float64[n, arms]
        0 for what was not eligible.

    Raises
    ------
    LogError
        The model refuses a row.
    """
    column = {arm: place for place, arm in enumerate(arms)}
    open_to = [_eligible(row, arms) for row in rows]
    found = np.zeros((len(rows), len(arms)))
    if candidate.learns is None or candidate.learns.algorithm == "uniform":
        for place, (row, eligible) in enumerate(zip(rows, open_to, strict=True)):
            for arm, probability in _fixed(candidate.fixed, row, eligible).items():
                found[place, column[arm]] = probability
        return found
    x = context if context is not None else np.zeros((len(rows), 0))
    model = ArmModel(x.shape[1], candidate.learns.half_life_s)
    edges = [len(rows) * block // BLOCKS for block in range(BLOCKS + 1)]
    for first, last in pairwise(edges):
        found[first:last] = decided(model.ready(candidate.learns), open_to[first:last], x[first:last], arms)
        for place in range(first, last):
            try:
                model.learn(rows[place].arm, x[place], rows[place].reward, rows[place].at_s, place)
            except ValueError as error:
                raise LogError(f"row {place + 1} cannot be learned: {error}") from None
    return found


def _eligible(row: Row, arms: Sequence[str]) -> tuple[str, ...]:
    if row.eligible is not None:
        return tuple(row.eligible)
    return (row.arm,) if row.propensity > _CERTAIN else tuple(arms)


def _fixed(shares: Mapping[str, float] | None, row: Row, eligible: Sequence[str]) -> Mapping[str, float]:
    if shares is None:
        return dict.fromkeys(eligible, 1.0 / len(eligible))
    wanted = {arm: shares[arm] for arm in eligible if shares.get(arm)}
    total = math.fsum(wanted.values())
    if total > 0.0:
        return {arm: share / total for arm, share in wanted.items()}
    return row.eligible or {row.arm: 1.0}


def decided(ready: ReadyPolicy, open_to: Sequence[tuple[str, ...]], x: Floats, arms: Sequence[str]) -> Floats:
    """What a policy gives each row's eligible arms in its context, rows with the same arms at once.

    Returns
    -------
    float64[n, arms]
        In the order of `arms`; 0 for what was not eligible.
    """
    column = {arm: place for place, arm in enumerate(arms)}
    found = np.zeros((len(open_to), len(arms)))
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, eligible in enumerate(open_to):
        alike.setdefault(eligible, []).append(place)
    for eligible, places in alike.items():
        found[np.ix_(places, [column[arm] for arm in eligible])] = ready.probabilities_of(eligible, x[places])
    return found


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise LogError(f"{name} is {_shown(value)}; expected a text" if name in record else f"{name} is missing")
    return value


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LogError(f"{name} is {_shown(value)}; expected a number" if name in record else f"{name} is missing")
    return _bounded(name, float(value))


def _bounded(name: str, value: float) -> float:
    if not abs(value) <= _LARGEST:
        raise LogError(f"{name} is {value:g}; expected a finite number, at most {_LARGEST:g} in size")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004 - of a line


def chosen(rows: Iterable[Row]) -> dict[str, tuple[int, float]]:
    """Arm -> (how often it was chosen, mean reward), sorted."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.arm, []).append(row.reward)
    return {arm: (len(rewards), math.fsum(rewards) / len(rewards)) for arm, rewards in sorted(found.items())}
