"""Which time zones there are."""

from __future__ import annotations

import zoneinfo
from functools import cache

from decisioning.findings import closest


@cache
def known() -> frozenset[str]:
    """Names of all IANA zones."""
    return frozenset(zoneinfo.available_timezones())


def check_zone(name: str) -> str:
    """Give the name back if there is such a zone; else ValueError, whose message is the remedy."""
    if name in known():
        return name
    by_city = {zone.rsplit("/", 1)[-1]: zone for zone in sorted(known())}
    city = closest(name.rsplit("/", 1)[-1].replace(" ", "_"), by_city)
    raise ValueError(f'try "{by_city[city]}"' if city else 'use a name such as "Europe/Berlin" or "UTC"')
