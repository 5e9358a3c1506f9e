"""Wall-clock rules: time zones, quiet hours, calendar days. Zones come from the pinned `tzdata` package alone.

The system's own zone files are never read: they differ between machines, and a decision must not.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

_ZONE_NAME = re.compile(r"[A-Za-z0-9_+\-]{1,40}(/[A-Za-z0-9_+\-]{1,40}){0,2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000
_DAY_MINUTES = 1_440


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo | None:
    """The IANA zone of that name, or None where the name is no zone.

    Examples
    --------
    >>> zone("Europe/Berlin").key, zone("Mars/Olympus"), zone("../../etc/passwd")
    ('Europe/Berlin', None, None)
    """
    if not _ZONE_NAME.fullmatch(name):
        return None
    node = resources.files("tzdata").joinpath("zoneinfo")
    for part in name.split("/"):
        node = node.joinpath(part)
    try:
        with node.open("rb") as file:
            return ZoneInfo.from_file(file, key=name)
    except (OSError, ValueError):  # absent, a folder, or one of the package's own tables
        return None


@lru_cache(maxsize=1)
def _zones_by_country() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    table = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8")
    for line in table.splitlines():
        if line and not line.startswith("#"):
            country, _, name = line.split("\t")[:3]
            found.setdefault(country, []).append(name)
    return found


def zone_of_country(country: str) -> ZoneInfo | None:
    """The zone of an ISO 3166 country that has exactly one; None for the others.

    Examples
    --------
    >>> zone_of_country("fr").key, zone_of_country("US"), zone_of_country("nowhere")
    ('Europe/Paris', None, None)
    """
    names = _zones_by_country().get(country.upper(), [])
    return zone(names[0]) if len(names) == 1 else None


def resolve_zone(trait: object, latest: object, country: object, default: str) -> ZoneInfo:
    """First rung of the ladder that holds: trait, latest event's zone, country with one zone, configuration."""
    for name in (trait, latest):
        found = zone(name) if isinstance(name, str) else None
        if found is not None:
            return found
    found = zone_of_country(country) if isinstance(country, str) else None
    found = found or zone(default)
    if found is None:
        raise ValueError(f"timezone {default!r} is no IANA zone; the configuration must name one")
    return found


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, exactly."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def local(at_ms: int, where: ZoneInfo) -> datetime:
    """Wall-clock time of an instant."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(where)


def instant(day: date, minute: int, where: ZoneInfo) -> int:
    """Milliseconds since the epoch of a wall-clock time.

    In a gap it is the first valid instant after the gap; in a fold, the first occurrence.

    Examples
    --------
    >>> new_york = zone("America/New_York")
    >>> local(instant(date(2026, 3, 8), 150, new_york), new_york).isoformat()  # 02:30 does not exist
    '2026-03-08T03:00:00-04:00'
    >>> local(instant(date(2026, 11, 1), 90, new_york), new_york).isoformat()  # 01:30 comes twice
    '2026-11-01T01:30:00-04:00'
    """
    naive = datetime.combine(day, time.min) + timedelta(minutes=minute)
    early = to_ms(naive.replace(tzinfo=where, fold=0))
    if local(early, where).replace(tzinfo=None) == naive:
        return early
    low, high = to_ms(naive.replace(tzinfo=where, fold=1)), early  # the gap's end lies in (low, high]
    before = local(low, where).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if local(middle, where).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def quiet_until(at_ms: int, from_minute: int, to_minute: int, where: ZoneInfo) -> int | None:
    """End of the quiet hours that hold at an instant, or None outside of them.

    Quiet hours are half-open intervals of instants, [from, to) on each local day, and may cross midnight.
    """
    today = local(at_ms, where).date()
    for day in (today - timedelta(days=1), today):
        start, end = _quiet_on(day, from_minute, to_minute, where)
        if start <= at_ms < end:
            return end
    return None


@lru_cache(maxsize=4096)
def _quiet_on(day: date, from_minute: int, to_minute: int, where: ZoneInfo) -> tuple[int, int]:
    """The quiet hours that begin on a day."""
    length = (to_minute - from_minute) % _DAY_MINUTES
    last = day if from_minute + length < _DAY_MINUTES else day + timedelta(days=1)
    return instant(day, from_minute, where), instant(last, to_minute, where)


def day_number(at_ms: int, where: ZoneInfo) -> int:
    """Ordinal of the local calendar day."""
    return local(at_ms, where).toordinal()


def week_number(at_ms: int, where: ZoneInfo) -> int:
    """Ordinal of the Monday that begins the local ISO week."""
    here = local(at_ms, where)
    return here.toordinal() - here.weekday()


@lru_cache(maxsize=8192)
def iso(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds; remembered, because a decision's records repeat the same few times.

    Examples
    --------
    >>> iso(0)
    '1970-01-01T00:00:00.000Z'
    """
    second, millisecond = divmod(at_ms, 1000)
    return f"{_EPOCH + timedelta(seconds=second):%Y-%m-%dT%H:%M:%S}.{millisecond:03d}Z"
