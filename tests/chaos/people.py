"""What people do to the workers, 500 events a second, and what is written down about it for the oracle."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from decisioning.partitioner import partition_of

PARTITIONS = 4
VIEWERS = 2_000
STORIES_SHARE = 0.08  # of the events that begin a story; a story is two to four
POISON_SHARE = 0.01
REPEATED_SHARE = 0.01
DELAY_S = 2.0
HOLDOUT = 0.1
CONFIG = f"""\
version: 1
timezone: Europe/Berlin
channels:
  email: {{address: email}}
consent: {{default: granted}}
campaigns:
  - id: cart
    trigger:
      event: Product Added
      delay: {DELAY_S:.0f}s
      cancel_on: [Order Completed]
      restart_on: [Cart Viewed]
    channels: [email]
    variants:
      subject:
        - {{id: plain, text: "Still thinking about {{{{ event.properties.name }}}}?"}}
        - {{id: offer, text: "{{{{ event.properties.name }}}} is waiting"}}
    holdout: {{share: {HOLDOUT}}}
    policy: {{algorithm: uniform}}
  - id: welcome
    kind: transactional
    trigger: {{event: Signed Up, delay: 0s}}
    channels: [email]
    variants:
      subject:
        - {{id: hello, text: "Hello {{{{ user.first_name }}}}"}}
    policy: {{algorithm: uniform}}
"""
POISON = (
    b"",
    b'{"type":"track","messageId":"p1","userId":"u","event":"E","prop',
    b'\xff\xfe{"type":"track"}',
    b'{"type":"track","messageId":1,"userId":"u","event":"E"}',
    b'{"type":"track","messageId":"p2","event":"E"}',
    b'{"type":"track","messageId":"p3","userId":"u","event":"E","timestamp":NaN}',
    b"[]",
    b"[" * 5_000,
)
HUGE = b'{"type":"track","messageId":"p4","userId":"u","event":"E","properties":{"x":"' + b"x" * 300_000 + b'"}}'
HUGE_SHARE = 0.01  # of the poison


@dataclass(frozen=True)
class Story:
    """A person and the one trigger of theirs.

    Attributes
    ----------
    kind
        What happens.
    person, visitor
        Who it is; who they were before that was known (`visitor`: not at all).
    campaign
        Which the trigger is for.
    trigger, cancel, restart
        Message ids, where the story has such events.
    """

    kind: str
    person: str
    campaign: str
    trigger: str
    visitor: str = ""
    cancel: str = ""
    restart: str = ""


@dataclass(frozen=True, order=True)
class Planned:
    """A record to publish; `partition` None: where its key belongs."""

    at_s: float
    number: int
    key: bytes = field(compare=False)
    value: bytes = field(compare=False)
    partition: int | None = field(compare=False, default=None)


class Population:
    """An endless stream of records, and the stories they tell.

    Parameters
    ----------
    seed
        Same seed, same records.
    poisoned
        Share of records that are no events.
    """

    def __init__(self, seed: str, poisoned: float = POISON_SHARE) -> None:
        self._chance = random.Random(seed)
        self._poisoned = poisoned
        self._numbers = itertools.count()
        self._later: list[Planned] = []
        self.stories: dict[str, Story] = {}  # by the trigger's message id
        self.poison = 0

    def records(self, rate_per_s: float) -> Iterator[Planned]:
        """Records in order of time, evenly spaced."""
        for slot in itertools.count():
            at_s = slot / rate_per_s
            drawn = self._chance.random()
            if self._later and self._later[0].at_s <= at_s:
                yield heapq.heappop(self._later)
            elif drawn < self._poisoned:
                yield self._bad(at_s)
            elif drawn < self._poisoned + STORIES_SHARE:
                yield self._story(at_s)
            else:
                yield self._view(at_s)

    def ends(self) -> list[Planned]:
        """The rest of the stories that have begun."""
        rest, self._later = sorted(self._later), []
        return rest

    def _bad(self, at_s: float) -> Planned:
        self.poison += 1
        value = HUGE if self._chance.random() < HUGE_SHARE else self._chance.choice(POISON)
        return Planned(at_s, next(self._numbers), b"p%d" % self._chance.randrange(100), value)

    def _view(self, at_s: float) -> Planned:
        user = f"v{self._chance.randrange(VIEWERS)}"
        properties = {"product_id": f"p{self._chance.randrange(500)}", "price": 19.9, "category": "shoes"}
        return self._event(at_s, user, type="track", userId=user, event="Product Viewed", properties=properties)

    def _event(self, at_s: float, key: str, partition: int | None = None, **body: Any) -> Planned:
        number = next(self._numbers)
        planned = Planned(at_s, number, key.encode(), orjson.dumps({"messageId": f"m{number}", **body}), partition)
        if self._chance.random() < REPEATED_SHARE:
            again_s = at_s + self._chance.choice((0.0, 0.05, 3.0))
            again = Planned(again_s, next(self._numbers), planned.key, planned.value, partition)
            heapq.heappush(self._later, again)
        return planned

    def _story(self, at_s: float) -> Planned:
        """Plan a story; its first record comes now, the others in their time."""
        number, kind = next(self._numbers), self._chance.choice(KINDS)
        person, visitor = f"u{number}", f"a{number}" if kind == "visitor" else ""
        cart_s = at_s + self._chance.choice((0.01, 0.4))
        name = "Signed Up" if kind == "signed up" else "Product Added"
        known: dict[str, Any] = {"type": "identify", "userId": person}
        traits: dict[str, Any] = {"email": f"{person}@example.com", "first_name": person}
        if kind == "refused":
            traits["consent"] = {"email": False}
        if kind == "unaddressed":
            del traits["email"]
        who: dict[str, Any] = {"anonymousId": visitor} if visitor else {"userId": person}
        astray = (partition_of(person, PARTITIONS) + 1) % PARTITIONS if kind == "astray" else None
        identify = self._event(at_s, person, traits=traits, **known)
        cart = self._event(
            cart_s, visitor or person, astray, type="track", event=name, properties={"name": f"boots {number}"}, **who
        )
        told, ids = [identify, cart], {"cancel": "", "restart": ""}
        if kind == "visitor":
            merge_s = cart_s + self._chance.choice((0.1, 1.0))
            told.append(self._event(merge_s, person, traits=traits, anonymousId=visitor, **known))
        for what, event in (("cancel", "Order Completed"), ("restart", "Cart Viewed")):
            if kind == what:
                more_s = cart_s + self._chance.choice((0.05, 0.7, 1.5))
                told.append(self._event(more_s, person, type="track", event=event, **who))
                ids[what] = _message_id(told[-1])
        campaign = "welcome" if kind == "signed up" else "cart"
        self.stories[_message_id(cart)] = Story(kind, person, campaign, _message_id(cart), visitor, **ids)
        for planned in told[1:]:
            heapq.heappush(self._later, planned)
        return told[0]


KINDS = (
    "plain", "plain", "plain", "signed up", "signed up", "cancel", "cancel", "restart", "refused", "unaddressed",
    "astray", "visitor",
)  # fmt: skip


def _message_id(planned: Planned) -> str:
    found: str = orjson.loads(planned.value)["messageId"]
    return found
