"""Which time zones there are: those of the pinned `tzdata` package, as for decisions."""

from __future__ import annotations

from functools import cache
from importlib import resources

from decisioning.findings import closest


@cache
def known() -> frozenset[str]:
    """Names of all IANA zones."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def check_zone(name: str) -> str:
    """Give the name back if there is such a zone; else ValueError, whose message is the remedy."""
    if name in known():
        return name
    by_city = {zone.rsplit("/", 1)[-1]: zone for zone in sorted(known())}
    city = closest(name.rsplit("/", 1)[-1].replace(" ", "_"), by_city)
    raise ValueError(f'try "{by_city[city]}"' if city else 'use a name such as "Europe/Berlin" or "UTC"')
