"""The named context of a choice, and the same as the fixed-width vector that models learn from.

A decision's record and its examples hold the context by name; `vector_of` makes of it, and of nothing else, what a
model sees. So an example read years later is the vector of its day, and a release that wants other features raises
`VERSION`, which every snapshot carries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from decisioning.durations import UNIT_MS
from decisioning.localtime import local
from decisioning.names import ACTIONS

VERSION: Final = 1
DEVICES: Final = ("mobile", "tablet", "desktop")
MAX_AGENT_CHARACTERS: Final = 512

_COUNTS: Final = ("view_7d", "add_7d", "order_7d")
_RECENT: Final = ("recent_view", "recent_add", "recent_order")
_MONEY: Final = ("revenue_30d", "price_7d")
_OUTCOMES: Final = {
    outcome: tuple(f"{outcome}_{channel}_30d" for channel in range(4)) for outcome in ("sent", "opened", "clicked")
}
_WAVES: Final = ("hour_sin", "hour_cos")
_FLAGS: Final = ("fatigue", "weekend", *(f"device_{family}" for family in DEVICES))
_PROPENSITIES: Final = tuple(f"propensity_{action}" for action in ACTIONS)
FEATURES: Final[tuple[str, ...]] = (
    *_COUNTS,
    *_RECENT,
    *_MONEY,
    *_OUTCOMES,
    "open_rate",
    "click_rate",
    *_WAVES,
    *_FLAGS,
    *_PROPENSITIES,
)
"""What a model sees, in this order; everything is 0 for somebody of whom nothing is known or may be used.

``view_7d, add_7d, order_7d``
    ln(1 + decayed count) / 2; no count or amount is taken for more than 1e9.
``recent_*``
    1 just now, halving every day.
``revenue_30d, price_7d``
    ln(1 + amount) / 5.
``sent, opened, clicked``
    ln(1 + decayed count of 30 days over all channels) / 2.
``open_rate, click_rate``
    opened / (1 + sent) and clicked / (1 + sent), at most 1.
``hour_sin, hour_cos, weekend``
    The person's local hour on the circle of a day, and whether it is Saturday or Sunday there.
``fatigue, device_*, propensity_*``
    As they are, within [0, 1].
"""
WIDTH: Final = len(FEATURES)
MAX_WIDTH: Final = 24
assert WIDTH <= MAX_WIDTH, "a model's size grows with the square of it"

_HALF, _MONEY_SCALE, _LARGEST = 0.5, 0.2, 1e9
_CIRCLE: Final = [(round(math.sin(math.tau * h / 24), 6), round(math.cos(math.tau * h / 24), 6)) for h in range(24)]
_SATURDAY: Final = 5
_QUARTER_MS: Final = 15 * UNIT_MS["m"]

_TABLETS: Final = ("ipad", "tablet", "kindle", "silk/")
_PHONES: Final = ("mobi", "iphone", "ipod")
_DESKTOPS: Final = ("windows nt", "macintosh", "x11", "cros ")


def vector_of(context: Mapping[str, float]) -> NDArray[np.float64]:
    """What a model sees of a named context.

    Parameters
    ----------
    context
        Any numbers under any names: names that are no feature are passed over, absent ones are 0, and what is not
        finite or beyond its range counts as 0 or as the range's end.

    Returns
    -------
    float64[WIDTH]
        All finite, each about the size of 1.

    Examples
    --------
    >>> dict(zip(FEATURES, vector_of({"view_7d": 0.0, "fatigue": 0.25}).tolist()))["fatigue"]
    0.25
    """
    get = context.get
    sent, opened, clicked = [sum([_amount(get(name, 0.0)) for name in names]) for names in _OUTCOMES.values()]
    log = math.log1p
    return np.array(
        [
            *[_HALF * log(_amount(get(name, 0.0))) for name in _COUNTS],
            *[_share(get(name, 0.0)) for name in _RECENT],
            *[_MONEY_SCALE * log(_amount(get(name, 0.0))) for name in _MONEY],
            _HALF * log(sent),
            _HALF * log(opened),
            _HALF * log(clicked),
            _share(opened / (1.0 + sent)),
            _share(clicked / (1.0 + sent)),
            *[_wave(get(name, 0.0)) for name in _WAVES],
            *[_share(get(name, 0.0)) for name in _FLAGS],
            *[_share(get(name, 0.0)) for name in _PROPENSITIES],
        ]
    )


def clock(now_ms: int, zone: ZoneInfo) -> Mapping[str, float]:
    """Hour and kind of day of a person by name, what is 0 left out; in quarters of an hour, as zones differ by those.

    Examples
    --------
    >>> dict(clock(25_140_000, ZoneInfo("UTC")))  # 06:59, a Thursday
    {'hour_sin': 1.0}
    """
    return _clock(now_ms // _QUARTER_MS, zone)


@lru_cache(maxsize=4096)
def _clock(quarter: int, zone: ZoneInfo) -> Mapping[str, float]:
    here = local(quarter * _QUARTER_MS, zone)
    sine, cosine = _CIRCLE[here.hour]
    named = {"hour_sin": sine, "hour_cos": cosine, "weekend": float(here.weekday() >= _SATURDAY)}
    return {name: value for name, value in named.items() if value}


def device_of(agent: str) -> str | None:
    """Family of the device that a user agent speaks for, None where it says nothing of that.

    Examples
    --------
    >>> device_of("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148")
    'mobile'
    """
    return _device_of(agent[:MAX_AGENT_CHARACTERS])


@lru_cache(maxsize=4096)
def _device_of(agent: str) -> str | None:
    text = agent.lower()
    if any(word in text for word in _TABLETS):
        return "tablet"
    if any(word in text for word in _PHONES):
        return "mobile"
    if "android" in text:  # a tablet's browser leaves out "Mobile"
        return "tablet"
    return "desktop" if any(word in text for word in _DESKTOPS) else None


def _amount(value: float) -> float:
    return min(value, _LARGEST) if value > 0.0 else 0.0  # a comparison with NaN is false


def _share(value: float) -> float:
    return min(value, 1.0) if value > 0.0 else 0.0


def _wave(value: float) -> float:
    return value if -1.0 <= value <= 1.0 else 0.0
