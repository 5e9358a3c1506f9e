"""Two groups, one difference: what treatment does against holdout, under any number of looks.

Every interval here is a confidence sequence: with probability 1 - alpha it covers the truth at all sample sizes at
once, so that whoever looks daily, or stops when they like what they see, is wrong no more often than alpha.

Rates (who did it, of how many) rest on counting labels. Let a share pi of people be treated, p and q the rates of the
two groups and rho = p / q. Of those who did it a share theta = pi rho / (pi rho + 1 - pi) is treated, whatever the rate
itself is; without an effect theta = pi exactly, whatever the delays. So the only unknown is one Bernoulli parameter,
and its confidence sequence is the mixture of likelihood ratios over a Beta prior around pi [1]_ [2]_. Nothing is
asymptotic: it holds at a rate of 0.1 % and with three conversions. The statistics are counts: order and delay do not
matter. Assumed is that rho stays the same over time; where there is no effect nothing is assumed.

Values (revenue) rest on pseudo-outcomes that are unbiased for the two means given the past (AIPW [3]_), and on the
asymptotic confidence sequence of their mean [4]_.

References
----------
.. [1] Lindon, M. and Malek, A. (2022). Anytime-valid inference for multinomial count data. NeurIPS 35. Theorem 1 (the
   Dirichlet mixture; sample-ratio mismatch) and section 4 (conversions: the share of counts of two arms).
.. [2] Robbins, H. (1970). Statistical methods related to the law of the iterated logarithm. Ann. Math. Stat. 41(5).
   Ville's inequality is what makes one boundary hold at all times.
.. [3] Deng, A., Xu, Y., Kohavi, R. and Walker, T. (2013). Improving the sensitivity of online controlled experiments by
   utilizing pre-experiment data. WSDM '13. (CUPED, the adjustment by what people did before.)
.. [4] Waudby-Smith, I., Arbour, D., Sinha, R., Kennedy, E. H. and Ramdas, A. (2024). Time-uniform central limit theory
   and asymptotic confidence sequences. Ann. Stat. 52(6). Theorem 2.2 and appendix B.2 (tuning).
.. [5] Fieller, E. C. (1954). Some problems in interval estimation. J. R. Stat. Soc. B 16(2). (Ratios of two means.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.policy import Floats

ALPHA: Final = 0.05
MISMATCH_ALPHA: Final = 0.001  # an alarm says that the experiment is broken: it must be rare
MISMATCH_PRIOR: Final = 1000.0  # pseudo-counts: tuned to shares that are off by about sqrt(share (1 - share) / 1000)
LOG_RATIO_SD: Final = 0.4  # effects the mixture is tuned to: a rate that is a third lower to a half higher
MIN_PAYERS: Final = 40  # people with a value that is not 0, in each group: with 10 the sequence misses 10 %, not 5 %
TUNED_PEOPLE: Final = 10_000.0  # sample size at which the asymptotic sequence is narrowest
MIN_BEFORE: Final = 100  # people seen before a slope on earlier values is believed
MAX_VALUE: Final = 1e100  # its square is still far from the largest double
_RATE_SHARE: Final = 0.1  # of alpha, spent on the rate of both groups together
_BISECTIONS: Final = 60


@dataclass(frozen=True, slots=True)
class Interval:
    """What is claimed: `low <= truth <= high`, and the best guess between them."""

    low: float
    mid: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


NOTHING: Final = Interval(-math.inf, math.nan, math.inf)


@dataclass(frozen=True, slots=True)
class Lift:
    """Treatment against holdout.

    Attributes
    ----------
    difference
        Treatment - holdout, per person.
    relative
        Treatment / holdout - 1. Where holdout may be 0 it has no upper bound.
    adjusted
        Whether what people did before narrowed it (CUPED).
    """

    difference: Interval
    relative: Interval
    adjusted: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """A group: how many people, and how many of them did it."""

    people: int
    did: int

    def __post_init__(self) -> None:
        if not 0 <= self.did <= self.people:
            raise ValueError(f"{self.did} of {self.people} people did it; expected 0 <= did <= people")

    @property
    def rate(self) -> float:
        """Share of the people who did it; not a number of nobody."""
        return self.did / self.people if self.people else math.nan


def rate_lift(treated: Count, held: Count, share: float, alpha: float = ALPHA, *, common: bool = False) -> Lift:
    """What treatment does to a rate, from four counts.

    Parameters
    ----------
    treated, held
        The groups.
    share
        Probability with which a person is treated, as configured; what was counted is not it.
    alpha
        Error rate, over all looks together.
    common
        Whether it may be done by more than a few in a hundred: those who did not do it are then counted as well, each
        side at half the error rate, and the intersection is told.

    Raises
    ------
    ValueError
        `share` or `alpha` is not between 0 and 1.

    Examples
    --------
    >>> lift = rate_lift(Count(19_000, 570), Count(1_000, 15), share=0.95)
    >>> round(lift.difference.low, 4), round(lift.difference.mid, 4), round(lift.difference.high, 4)
    (-0.0006, 0.015, 0.0292)
    """
    _between(share=share, alpha=alpha)
    did, people = treated.did + held.did, treated.people + held.people
    rates = bernoulli_interval(did, people - did, (0.5, 0.5), alpha * _RATE_SHARE)
    left = alpha * (1.0 - _RATE_SHARE)
    ratios = _ratios(treated.did, held.did, share, left / 2 if common else left)
    corners = [_rates_of(ratio, rate, share) for ratio in ratios for rate in rates]
    difference, relative = _span(corners, _difference), _span(corners, _relative)
    if common:
        ratios = _ratios(treated.people - treated.did, held.people - held.did, share, left / 2)
        others = [_rates_of(ratio, 1.0 - rate, share) for ratio in ratios for rate in rates]
        corners = [(1.0 - p, 1.0 - q) for p, q in others]
        difference = _both(difference, _span(corners, _difference))
        relative = _both(relative, _span(corners, _relative))
    rates_seen = treated.rate, held.rate
    return Lift(_around(difference, _difference(rates_seen)), _around(relative, _relative(rates_seen)))


def mismatch_evidence(treated: int, held: int, share: float) -> float:
    """Evidence against people having been split as configured (sample-ratio mismatch), as a natural logarithm.

    With the configured share, exp of it exceeds 1 / a at any time with probability a at most, however often one looks
    ([1]_, theorem 1 with a Dirichlet prior of `MISMATCH_PRIOR` pseudo-counts around the share).

    Raises
    ------
    ValueError
        `share` is not between 0 and 1, or a count is negative.

    Examples
    --------
    >>> mismatch_evidence(9_500, 500, 0.95) < 0 < mismatch_evidence(9_300, 700, 0.95)
    True
    """
    _between(share=share)
    if treated < 0 or held < 0:
        raise ValueError(f"treated={treated}, held={held}: expected counts of people, at least 0")
    prior = MISMATCH_PRIOR * share, MISMATCH_PRIOR * (1.0 - share)
    return _log_mixture(treated, held, prior) - _log_likelihood(treated, held, share)


def is_mismatched(evidence: float) -> bool:
    """Whether evidence of `mismatch_evidence` is an alarm, at error rate `MISMATCH_ALPHA` over all looks."""
    return evidence > -math.log(MISMATCH_ALPHA)


def bernoulli_interval(did: int, not_did: int, prior: tuple[float, float], alpha: float) -> tuple[float, float]:
    """Confidence sequence of a probability: {p : mixture / likelihood(p) < 1 / alpha}, from counts alone.

    Examples
    --------
    >>> low, high = bernoulli_interval(30, 970, (0.5, 0.5), 0.05)
    >>> round(low, 3), round(high, 3)
    (0.014, 0.054)
    """
    bound = _log_mixture(did, not_did, prior) + math.log(alpha)

    def inside(p: float) -> bool:
        return _log_likelihood(did, not_did, p) > bound

    seen = did / (did + not_did) if did + not_did else 0.5
    return _edge(inside, seen, 0.0), _edge(inside, seen, 1.0)


def value_lift(
    treated: NDArray[np.bool_], value: Floats, share: float, before: Floats | None = None, alpha: float = ALPHA
) -> Lift:
    """What treatment does to a value per person.

    Assumed: people are independent, a value has a finite variance, and `MIN_PAYERS` are many enough for a central limit
    theorem; before there are so many in each group the interval is the whole line.

    Parameters
    ----------
    treated : bool[n]
        Who was treated, in the order in which people's values became known.
    value : float64[n]
        Of each person, 0 for most.
    share
        Probability with which a person is treated, as configured.
    before : float64[n], optional
        The same value before a person came in. It is used from where on it would have lowered the variance (CUPED);
        what is estimated stays the same.
    alpha
        Error rate over all looks.

    Raises
    ------
    ValueError
        `share` or `alpha` is not between 0 and 1, lengths differ, or a number is not finite.
    """
    return value_path(treated, value, share, before).lift(len(value), alpha)


@dataclass(frozen=True, slots=True)
class ValuePath:
    """Pseudo-outcomes: each unbiased for its group's mean, given everybody before.

    Attributes
    ----------
    treated, held
        float64[n], one per person.
    payers
        int64[n]: people with a value so far, of the group that has fewer of them.
    adjusted
        bool[n]: whether values before were in use.
    """

    treated: Floats
    held: Floats
    payers: NDArray[np.int64]
    adjusted: NDArray[np.bool_]

    def lift(self, people: int, alpha: float = ALPHA) -> Lift:
        """What is known after the first so many people."""
        _between(alpha=alpha)
        if people == 0 or self.payers[people - 1] < MIN_PAYERS:
            return Lift(NOTHING, NOTHING)
        a, b = self.treated[:people], self.held[:people]
        width = _asymptotic_width(people, alpha)
        mid = float(a.mean() - b.mean())
        reach = width * float(np.std(a - b))
        return Lift(Interval(mid - reach, mid, mid + reach), _fieller(a, b, width), bool(self.adjusted[people - 1]))


def value_path(treated: NDArray[np.bool_], value: Floats, share: float, before: Floats | None = None) -> ValuePath:
    """Pseudo-outcomes of people in their order; means and slopes in them are those of the people before [3]_.

    Parameters and errors are those of `value_lift`, which asks it once; ask it for as many looks as wanted.
    """
    _between(share=share)
    treated, value = np.asarray(treated, np.bool_), _finite("value", value)
    if len(treated) != len(value) or (before is not None and len(before) != len(value)):
        raise ValueError(f"{len(treated)} groups and {len(value)} values; expected one of each per person")
    a, b = _pseudo_outcomes(treated, value, np.zeros(len(value)), share)
    use = np.zeros(len(value), np.bool_)
    if before is not None:
        shift = _predicted(treated, value, _finite("before", before))
        better_a, better_b = _pseudo_outcomes(treated, value, shift, share)
        use = _earlier(np.square(better_a - better_b)) < _earlier(np.square(a - b))
        a, b = np.where(use, better_a, a), np.where(use, better_b, b)
    paid = value != 0.0
    payers = np.minimum(np.cumsum(treated & paid), np.cumsum(~treated & paid))
    return ValuePath(a, b, payers, use)


def _pseudo_outcomes(treated: NDArray[np.bool_], value: Floats, shift: Floats, share: float) -> tuple[Floats, Floats]:
    """(y - m) 1{group} / P(group) + m for each group, with m the group's mean of the people before."""
    rest = value - shift
    found = []
    for group, probability in ((treated, share), (~treated, 1.0 - share)):
        mean = _earlier(np.where(group, rest, 0.0)) / np.maximum(1.0, _earlier(group.astype(np.float64)))
        found.append((rest - mean) * group / probability + mean)
    return found[0], found[1]


def _predicted(treated: NDArray[np.bool_], value: Floats, before: Floats) -> Floats:
    """What the value before says about the value now: slope (x - mean), both of the people before.

    The slope is the one within groups, so that an effect does not pass for a slope.
    """
    people = np.arange(len(value), dtype=np.float64)
    cross, square = _earlier(value * before), _earlier(np.square(before))
    for group in (treated, ~treated):
        count = np.maximum(1.0, _earlier(group.astype(np.float64)))
        x, y = _earlier(np.where(group, before, 0.0)), _earlier(np.where(group, value, 0.0))
        cross, square = cross - x * y / count, square - np.square(x) / count
    known = (square > 0.0) & (people >= MIN_BEFORE)
    slope = np.divide(cross, square, out=np.zeros(len(value)), where=known)
    mean = _earlier(before) / np.maximum(1.0, people)
    return slope * (before - mean)


def _earlier(values: Floats) -> Floats:
    """Sum of all before each."""
    return np.cumsum(values) - values


def _asymptotic_width(people: int, alpha: float) -> float:
    """Half-width of the sequence in standard deviations ([4]_, theorem 2.2), narrowest at `TUNED_PEOPLE`."""
    log = -2.0 * math.log(alpha)
    scale = people * (log + math.log(log) + 1.0) / TUNED_PEOPLE  # n rho^2
    return math.sqrt(2.0 * (scale + 1.0) / (people * scale) * math.log(math.sqrt(scale + 1.0) / alpha))


def _fieller(a: Floats, b: Floats, width: float) -> Interval:
    """Ratios r - 1 for which the sequence of a - r b covers 0 [5]_; the whole line where b's mean may be 0."""
    mean_a, mean_b = float(a.mean()), float(b.mean())
    (var_a, covariance), (_, var_b) = np.cov(a, b, bias=True).tolist()
    square = width * width
    lead = mean_b * mean_b - square * var_b
    middle = mean_a * mean_b - square * covariance
    last = mean_a * mean_a - square * var_a
    root = middle * middle - lead * last
    mid = mean_a / mean_b - 1.0 if mean_b else math.nan
    if lead <= 0.0 or root < 0.0:
        return Interval(-math.inf, mid, math.inf)
    reach = math.sqrt(root)
    return Interval((middle - reach) / lead - 1.0, mid, (middle + reach) / lead - 1.0)


def _ratios(treated: int, held: int, share: float, alpha: float) -> tuple[float, float]:
    """Confidence sequence of treatment's rate over holdout's, from how many of each did it."""
    strength = 1.0 / (LOG_RATIO_SD**2 * share * (1.0 - share))
    low, high = bernoulli_interval(treated, held, (strength * share, strength * (1.0 - share)), alpha)
    return tuple(_ratio(theta, share) for theta in (low, high))  # type: ignore[return-value]  # two in, two out


def _ratio(theta: float, share: float) -> float:
    return math.inf if theta >= 1.0 else theta * (1.0 - share) / ((1.0 - theta) * share)


def _rates_of(ratio: float, rate: float, share: float) -> tuple[float, float]:
    """Both groups' rates from their ratio and the rate of all together; a rate above 1 is cut to it."""
    if math.isinf(ratio):
        return min(1.0, rate / share), 0.0
    base = rate / (share * ratio + 1.0 - share)
    return min(1.0, ratio * base), min(1.0, base)


def _difference(rates: tuple[float, float]) -> float:
    return rates[0] - rates[1]


def _relative(rates: tuple[float, float]) -> float:
    p, q = rates
    if q > 0.0:
        return p / q - 1.0
    return math.inf if p > 0.0 else math.nan


def _span(corners: list[tuple[float, float]], what: Callable[[tuple[float, float]], float]) -> tuple[float, float]:
    """Range over an interval of ratios and one of rates: it is monotone in each, so the corners tell."""
    found = [value for value in map(what, corners) if not math.isnan(value)]
    return min(found), max(found)


def _both(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return max(a[0], b[0]), min(a[1], b[1])


def _around(bounds: tuple[float, float], mid: float) -> Interval:
    """The interval, widened by a hair where what was seen lies outside of it (sizes are not quite as configured)."""
    if not math.isfinite(mid):
        return Interval(bounds[0], mid, bounds[1])
    return Interval(min(bounds[0], mid), mid, max(bounds[1], mid))


def _log_mixture(did: int, not_did: int, prior: tuple[float, float]) -> float:
    """Log of the probability of a sequence with these counts, averaged over a Beta prior."""
    a, b = prior
    return _log_beta(a + did, b + not_did) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_likelihood(did: int, not_did: int, p: float) -> float:
    if (did and p <= 0.0) or (not_did and p >= 1.0):
        return -math.inf
    return (did * math.log(p) if did else 0.0) + (not_did * math.log1p(-p) if not_did else 0.0)


def _edge(inside: Callable[[float], bool], within: float, end: float) -> float:
    """Where a condition that holds at `within` ceases on the way to `end`."""
    if inside(end):
        return end
    outside = end
    for _ in range(_BISECTIONS):
        middle = (within + outside) / 2
        if inside(middle):
            within = middle
        else:
            outside = middle
    return outside  # the side that is certainly covered


def _between(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0.0 < value < 1.0:  # what is not a number is not either
            raise ValueError(f"{name}={value}; expected a number between 0 and 1, both excluded")


def _finite(name: str, values: Floats) -> Floats:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not (np.abs(found) <= MAX_VALUE).all():  # what is not a number is not either
        raise ValueError(f"{name} has numbers that are not finite or beyond {MAX_VALUE:g}; drop or mend them")
    return found
