"""What a policy is asked to be: its algorithm and the numbers that go with it, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

ALGORITHMS: Final = ("beta_bernoulli", "epsilon_greedy", "softmax", "squarecb", "thompson", "uniform")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """An algorithm and its parameters.

    Attributes
    ----------
    algorithm
        One of `ALGORITHMS`.
    explore
        Share of the probability that is spread evenly over the eligible arms: no arm has less than `explore / arms`.
    half_life_s
        After how many seconds an example counts half; None: examples do not age.
    horizon
        How many decisions are expected in all; None: exploration has no end in view.
    temperature
        Of `softmax`, in standard deviations of an arm's mean.
    gamma
        Of `squarecb`: scale of its learning rate.
    """

    algorithm: str = "thompson"
    explore: float = 0.05
    half_life_s: float | None = None
    horizon: int | None = None
    temperature: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.algorithm not in ALGORITHMS:
            raise _wrong("algorithm", self.algorithm, f"one of {', '.join(ALGORITHMS)}")
        _number("explore", self.explore, "a number from 0 to 1", low=0.0, high=1.0, zero=True)
        if self.half_life_s is not None:
            _number("half_life", self.half_life_s, "seconds above 0, or a duration like '7d'")
        horizon = self.horizon
        if horizon is not None and (type(horizon) is not int or not 1 <= horizon <= 10**12):
            raise _wrong("horizon", horizon, "a whole number of decisions from 1 to 10**12")
        _number("temperature", self.temperature, "a number above 0")
        _number("gamma", self.gamma, "a number above 0")

    @staticmethod
    def of(spec: Mapping[str, Any]) -> PolicySpec:
        """Read a specification as it is written in a configuration.

        Raises
        ------
        ValueError
            Naming the parameter, its value and what was expected.

        Examples
        --------
        >>> PolicySpec.of({"algorithm": "thompson", "half_life": "7d"}).half_life_s
        604800.0
        """
        if not isinstance(spec, Mapping):
            raise _wrong("spec", spec, "a mapping like {'algorithm': 'thompson'}")
        names = {field.name: field.name for field in fields(PolicySpec)} | {"half_life": "half_life_s"}
        unknown = [str(name) for name in spec if name not in names]
        if unknown:
            raise ValueError(f"spec has {', '.join(unknown)}; expected only {', '.join(names)}: remove or correct it")
        given = {names[name]: value for name, value in spec.items()}
        if isinstance(given.get("half_life_s"), str):
            given["half_life_s"] = _seconds(given["half_life_s"])
        return PolicySpec(**given)


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise _wrong("half_life", text, "seconds above 0, or a duration like '7d'")
    return float(found[1]) * _SECONDS[found[2]]


def _number(name: str, value: Any, expected: str, low: float = 0.0, high: float = 1e12, *, zero: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high or (value == 0 and not zero):
        raise _wrong(name, value, expected)


def _wrong(name: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{name} is {value!r}; expected {expected}: correct the policy's specification")
