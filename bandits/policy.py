"""Choosing one arm: exact probabilities, and a draw that can be repeated."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SUM_TOLERANCE = 1e-9
_DRAW_BITS = 53  # a double holds every multiple of 2**-53 in [0, 1) exactly


class Uniform:
    """Every eligible arm with the same probability; what any policy is before it has learned."""

    def probabilities(self, x: Floats) -> Floats:
        """Probability 1 / arms for each of `x`'s rows.

        Examples
        --------
        >>> Uniform().probabilities(np.zeros((4, 2))).tolist()
        [0.25, 0.25, 0.25, 0.25]
        """
        if len(x) == 0:
            raise ValueError("x has no rows; expected at least one eligible arm: ask only where there is a choice")
        return np.full(len(x), 1.0 / len(x))


def uniform_number(key: bytes) -> float:
    """A number in [0, 1) that depends on `key` alone, uniform over keys (keyed hash, 53 bits).

    Examples
    --------
    >>> uniform_number(b"a") == uniform_number(b"a")
    True
    """
    digest = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
    return float(digest >> (64 - _DRAW_BITS)) * 2.0**-_DRAW_BITS


def is_distribution(probabilities: Floats) -> bool:
    """Whether these are positive numbers adding to 1 to within 1e-9, at least one of them.

    Examples
    --------
    >>> is_distribution(np.array([0.25, 0.75])), is_distribution(np.array([0.0, 1.0]))
    (True, False)
    """
    p = probabilities
    return p.ndim == 1 and len(p) > 0 and bool(np.all(p > 0.0)) and abs(float(p.sum()) - 1.0) <= _SUM_TOLERANCE


def draw(probabilities: Floats, key: bytes) -> int:
    """Draw one arm by inverting the cumulative distribution at `uniform_number(key)`.

    Parameters
    ----------
    probabilities : float64[arms]
        Positive, adding to 1 to within 1e-9.
    key
        Names the draw; the same key gives the same arm for the same probabilities in every process.

    Raises
    ------
    ValueError
        If the probabilities are not a distribution.

    Examples
    --------
    >>> draw(np.array([0.0 + 1e-9, 1.0 - 1e-9]), b"decision/subject")
    1
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not is_distribution(p):
        raise ValueError(f"probabilities {p!r} are not a distribution; expected positive numbers adding to 1")
    arm = int(np.searchsorted(np.cumsum(p), uniform_number(key), side="right"))
    return min(arm, len(p) - 1)  # rounding can leave the last cumulative sum a hair below 1
