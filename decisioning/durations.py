"""Lengths of time as people write them: `30s`, `15m`, `2h`, `7d`."""

from __future__ import annotations

import re

UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DAY_MS = UNIT_MS["d"]
DAY_HOURS, HOUR_MINUTES = 24, 60
LONGEST_MS = 3_650 * DAY_MS  # ten years: far beyond any use, and far from overflowing anything

_DURATION = re.compile(r"(\d{1,10})([smhd])", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)


def parse(text: str) -> int:
    """Read a duration.

    Parameters
    ----------
    text
        A whole number and one unit: `s`, `m`, `h` or `d`.

    Returns
    -------
    int
        Milliseconds, from 0 to ten years.

    Raises
    ------
    ValueError
        The message says what to write instead.

    Examples
    --------
    >>> parse("15m")
    900000
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(_remedy(text))
    length_ms = int(match[1]) * UNIT_MS[match[2]]
    if length_ms > LONGEST_MS:
        raise ValueError("use at most 3650d")
    return length_ms


def spell(length_ms: int) -> str:
    """Write a duration with the largest unit that divides it; the inverse of `parse`.

    Examples
    --------
    >>> spell(7_200_000), spell(0)
    ('2h', '0s')
    """
    for unit in ("d", "h", "m"):
        if length_ms and length_ms % UNIT_MS[unit] == 0:
            return f"{length_ms // UNIT_MS[unit]}{unit}"
    return f"{length_ms // UNIT_MS['s']}s"


def parse_clock(text: str) -> int:
    """Read a time of day such as `21:00` as minutes after midnight, 0 to 1439.

    Raises
    ------
    ValueError
        The message says what to write instead.
    """
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError('write hours and minutes, such as "21:00"')
    hours, minutes = int(match[1]), int(match[2])
    if (hours, minutes) == (DAY_HOURS, 0):
        raise ValueError('write midnight as "00:00"')
    if hours >= DAY_HOURS or minutes >= HOUR_MINUTES:
        raise ValueError('use "00:00" to "23:59"')
    return hours * HOUR_MINUTES + minutes


def spell_clock(minute: int) -> str:
    """Write minutes after midnight as `HH:MM`; the inverse of `parse_clock`."""
    return f"{minute // HOUR_MINUTES:02d}:{minute % HOUR_MINUTES:02d}"


def _remedy(text: str) -> str:
    stripped = text.strip().lower()
    if re.fullmatch(r"\d{1,10}", stripped, re.ASCII):
        return f'name the unit: "{stripped}s", "{stripped}m", "{stripped}h" or "{stripped}d"'
    if weeks := re.fullmatch(r"(\d{1,9})\s*w(eeks?)?", stripped, re.ASCII):
        return f'try "{int(weeks[1]) * 7}d"'
    if simple := re.fullmatch(r"(\d{1,10})\s*(s|m|h|d)[a-z]*", stripped, re.ASCII):
        milliseconds = stripped.endswith("ms") or "mil" in stripped or "mo" in stripped
        if not milliseconds:
            return f'try "{simple[1]}{simple[2]}"'
    if fraction := re.fullmatch(r"(\d{1,6}\.\d{1,6})\s*([mhd])", stripped, re.ASCII):
        return f'try "{spell(int(float(fraction[1]) * UNIT_MS[fraction[2]]))}"'
    return 'try "30s", "15m", "2h" or "7d"'
