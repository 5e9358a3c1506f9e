"""From a specification to a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandits.linear import LinearPolicy
from bandits.spec import PolicySpec


def build_policy(spec: Mapping[str, Any], dim: int) -> LinearPolicy:
    """A policy over rows of `dim` features.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what was expected.
    """
    if type(dim) is not int or dim < 1:
        raise ValueError(f"dim is {dim!r}; expected the number of features, at least 1")
    return LinearPolicy(PolicySpec.of(spec), dim)
