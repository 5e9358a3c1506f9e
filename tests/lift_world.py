"""A made-up world with a known lift: people fill a basket once; the treated buy more often, and for more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson

from decisioning.choice import held_out
from decisioning.config import Config, Holdout, load

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
HOLDOUT = Holdout(share=0.2, salt="winter")


@dataclass(frozen=True)
class World:
    """Rates of both groups, how long it takes, and how many people there are."""

    people: int = 3000
    treated: float = 0.12
    held: float = 0.06
    days: float = 30.0
    revenue: float = 40.0
    seed: int = 1
    leaves: float = 0.01
    stays: float = 0.3

    def events(self) -> Iterator[bytes]:
        """Segment events in order of time; a fifth of the people have no address, and some come anonymously."""
        rng = np.random.default_rng(self.seed)
        found: list[tuple[datetime, dict[str, Any]]] = []
        for number in range(self.people):
            one, at = f"u-{number}", START + timedelta(days=self.days * rng.random())
            treated = not held_out(HOLDOUT, "", one)
            traits = {"email": f"{one}@example.com"} if number % 5 else {}
            found.append((at - timedelta(minutes=2), {"type": "identify", "userId": one, "traits": traits}))
            device = f"a-{number}"
            if number % 3 == 0:
                found.append((at - timedelta(minutes=1), {"type": "identify", "userId": one, "anonymousId": device}))
            who = {"anonymousId": device} if number % 3 == 0 else {"userId": one}
            found.append((at, track("Product Added", cart_id=f"c-{number}") | who))
            worth = self.revenue * rng.lognormal(-0.32, 0.8)
            if rng.random() < (self.treated if treated else self.held):
                bought = at + timedelta(hours=1.0 + 40.0 * rng.random())
                found.append((bought, track("Order Completed", revenue=round(worth, 2)) | who))
            if rng.random() < self.leaves and treated:
                found.append((at + timedelta(hours=2), track("Unsubscribed") | {"userId": one}))
            if rng.random() < self.stays:
                found.append((at + timedelta(days=8), {"type": "page", "name": "Home"} | who))
        end = START + timedelta(days=self.days + 15)
        found.append((end, {"type": "page", "userId": "last"}))
        for number, (at, event) in enumerate(sorted(found, key=lambda entry: entry[0])):
            stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            yield orjson.dumps({"messageId": f"m-{number}", "timestamp": stamp, **event})


def track(event: str, **properties: Any) -> dict[str, Any]:
    """A track call without a person."""
    return {"type": "track", "event": event, "properties": properties}


def setup(holdout: dict[str, Any] | None = None, **changes: Any) -> Config:
    """The configuration of the world; a daily cap stands in the way of some."""
    return load(document(holdout, **changes))


def document(holdout: dict[str, Any] | None = None, **changes: Any) -> str:
    """The same as text."""
    campaign = {
        "id": "cart",
        "trigger": {"event": "Product Added", "delay": "30m", "cancel_on": ["Order Completed"]},
        "channels": ["email"],
        "variants": {"subject": [{"id": "a", "text": "Your basket"}]},
        "goal": {"event": "Order Completed", "within": "72h", "value": "properties.revenue"},
    }
    whole = {
        "version": 1,
        "timezone": "UTC",
        "channels": {"email": {"address": "email"}},
        "holdout": {"share": HOLDOUT.share, "salt": HOLDOUT.salt} if holdout is None else holdout,
        "campaigns": [campaign],
    }
    return json.dumps(whole | changes)
