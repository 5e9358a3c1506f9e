"""A shop's traffic, made up: who looks at what, fills a cart, forgets it, buys.

Pure and seeded: the same arguments give the same bytes. Every visit is a small random walk. The same number
of visits is open at each moment and the next event belongs to any of them: so the stream is a Poisson process
of the wanted rate from its first second on, and the time between two steps of one visit is exponential with
mean `think_s`.
"""

from __future__ import annotations

import datetime as dt
import functools
import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

BLOCK: Final = 4096  # random numbers drawn at once; one at a time costs ten times as much
REMEMBERED: Final = 64  # latest events that a duplicate may repeat
LATEST_S: Final = 20.0  # a held-back event comes at most so much later
WRONG_CLOCKS_MS: Final = (-20 * 365 * 86_400_000, 3_600_000, 86_400_000)  # never set, wrong zone, wrong day

ZIPF_EXPONENT: Final = 0.8
ZIPF_SHIFT: Final = 10.0  # flattens the very top: nobody is a tenth of a shop's traffic

ANONYMOUS_SHARE: Final = 0.3  # of visits begin without an account
SIGN_IN: Final = 0.12  # a step of an anonymous visitor is to sign in
LEAVE: Final = 0.08  # a step is the last
ORDER: Final = 0.45  # a step after the checkout's begin is to order
# Else one roll decides: below these, with something in the cart; above the last, always; between them, to look.
REMOVE: Final = 0.07
LOOK_AT_CART: Final = 0.17
CHECK_OUT: Final = 0.30
ADD: Final = 0.88

FIRST_NAMES: Final = (
    "Ann",
    "Ben",
    "Chloé",
    "Deniz",
    "Elif",
    "Finn",
    "Grace",
    "Hugo",
    "İpek",
    "Jan",
    "Kofi",
    "Lea",
)
ZONES: Final = ("Europe/Berlin", "Europe/Paris", "America/New_York", "Asia/Tokyo", "Australia/Sydney")
KINDS: Final = (
    ("boots", "shoes", 129.0),
    ("sneakers", "shoes", 89.0),
    ("raincoat", "coats", 149.0),
    ("scarf", "accessories", 29.0),
    ("backpack", "bags", 79.0),
    ("tote", "bags", 39.0),
    ("sweater", "knitwear", 69.0),
    ("beanie", "accessories", 19.0),
)
COLOURS: Final = ("black", "blue", "green", "red", "sand", "white")
PRODUCTS: Final = tuple(
    {"product_id": f"p-{n}", "name": f"{colour} {kind}".capitalize(), "category": category, "price": price}
    for n, (colour, (kind, category, price)) in enumerate((c, k) for k in KINDS for c in COLOURS)
)

# Bytes that are no event, each of another kind.
POISON: Final = (
    b'{"messageId": "broken", "type": "track", "userId": "u-1", "event": "Product Ad',
    b"not json at all",
    b'{"messageId": "nan", "type": "track", "userId": "u-1", "event": "Page", "properties": {"a": NaN}}',
    b'{"type": "track", "userId": "u-1", "event": "Product Viewed"}',
    b'{"messageId": "nobody", "type": "track", "event": "Product Viewed"}',
    b'{"messageId": 17, "type": "track", "userId": ["u-1"], "event": {}}',
    b'{"messageId": "latin", "type": "track", "userId": "u-1", "event": "caf\xe9"}',
    b"[" * 2000,
)


class Simulated(NamedTuple):
    """One record to publish: when (milliseconds since the epoch), under which key, and its bytes."""

    at_ms: int
    key: bytes
    value: bytes


@dataclass(slots=True)
class _Visit:
    person: int
    device: str
    anonymous: bool  # when it began
    user: str | None  # None: anonymous so far
    introduced: bool  # identified in this visit or before, so that we have an address
    cart: str
    items: list[int] = field(default_factory=list)
    checking_out: bool = False
    over: bool = False


class _Dice:
    """Uniform random numbers, drawn in blocks."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._block: list[float] = []

    def roll(self) -> float:
        if not self._block:
            self._block = self._generator.random(BLOCK).tolist()
        return self._block.pop()

    def pick(self, count: int) -> int:
        return int(self.roll() * count)

    def wait_s(self, mean_s: float) -> float:
        return -mean_s * math.log1p(-self.roll())


def events(
    seed: int,
    people: int,
    rate_per_s: float,
    start_ms: int,
    *,
    think_s: float = 20.0,
    odd_share: float = 0.0,
) -> Iterator[Simulated]:
    """Generate a shop's events without end, in the order in which they arrive.

    Parameters
    ----------
    seed
        Same seed, same bytes.
    people
        How many there are; their activity follows Zipf's law.
    rate_per_s
        Mean number of events a second.
    start_ms
        Time of the beginning, in milliseconds since the epoch.
    think_s
        Mean time between two events of one visit, in seconds.
    odd_share
        Share of records that are a duplicate, late (and so out of order), of a wrong clock, or no event at
        all: a quarter each.

    Yields
    ------
    Simulated
        Segment's form, with `receivedAt` as the time of arrival.

    Raises
    ------
    ValueError
        An argument out of its bounds.
    """
    if people < 1 or rate_per_s <= 0 or think_s <= 0 or not 0 <= odd_share < 1:
        raise ValueError(
            f"people={people}, rate_per_s={rate_per_s}, think_s={think_s}, odd_share={odd_share}: expected "
            "at least one person, a rate and a think time above 0 and a share from 0 to below 1"
        )
    return _Shop(seed, people, rate_per_s, start_ms, think_s, odd_share).run()


class _Shop:
    def __init__(
        self, seed: int, people: int, rate_per_s: float, start_ms: int, think_s: float, odd_share: float
    ) -> None:
        self._dice = _Dice(seed)
        self._seed = seed
        self._gap_ms = 1000 / rate_per_s
        self._now_ms = float(start_ms)
        self._odd_share = odd_share
        self._popularity = np.cumsum(1 / (np.arange(people) + ZIPF_SHIFT) ** ZIPF_EXPONENT)
        self._known: set[int] = set()  # at most `people`
        self._count = 0  # of events so far: message ids
        self._visits_begun = 0
        self._visits = [self._visit() for _ in range(max(1, round(rate_per_s * think_s)))]
        self._recent: list[Simulated] = []
        self._held: list[Simulated] = []  # a heap by arrival; bounded by rate, share and LATEST_S

    def run(self) -> Iterator[Simulated]:
        """Records in the order in which they arrive, without end."""
        while True:
            self._now_ms += self._dice.wait_s(self._gap_ms)
            while self._held and self._held[0].at_ms <= self._now_ms:
                yield heapq.heappop(self._held)
            if self._odd_share and self._dice.roll() < self._odd_share:
                odd = self._odd()
                if odd is not None:
                    yield odd
                continue
            record = self._next()
            if len(self._recent) == REMEMBERED:
                self._recent[self._dice.pick(REMEMBERED)] = record
            else:
                self._recent.append(record)
            yield record

    def _next(self, skew_ms: int = 0) -> Simulated:
        """One step of one open visit; a visit that is over makes room for a new one."""
        place = self._dice.pick(len(self._visits))
        visit = self._visits[place]
        record = self._step(visit, skew_ms)
        if visit.over:
            self._visits[place] = self._visit()
        return record

    def _odd(self) -> Simulated | None:
        """What a pipeline meets now and then; None where it is held back until later."""
        at_ms = int(self._now_ms)
        match self._dice.pick(4):
            case 0 if self._recent:
                again = self._recent[self._dice.pick(len(self._recent))]
                return again._replace(at_ms=at_ms)
            case 1:
                record = self._next()
                late_ms = int(1000 * LATEST_S * self._dice.roll())
                heapq.heappush(self._held, record._replace(at_ms=at_ms + late_ms))
                return None
            case 2:
                return self._next(skew_ms=WRONG_CLOCKS_MS[self._dice.pick(len(WRONG_CLOCKS_MS))])
            case _:
                return Simulated(at_ms, b"u-1", POISON[self._dice.pick(len(POISON))])

    def _visit(self) -> _Visit:
        """A visit of somebody, begun now; nothing is recorded before its first step."""
        self._visits_begun += 1
        number = self._visits_begun
        person = int(np.searchsorted(self._popularity, self._dice.roll() * self._popularity[-1], side="right"))
        anonymous = self._dice.roll() < ANONYMOUS_SHARE
        return _Visit(
            person=person,
            device=f"a-{self._seed}-{number}",
            anonymous=anonymous,
            user=None if anonymous else f"u-{person}",
            introduced=person in self._known and not anonymous,
            cart=f"c-{self._seed}-{number}",
        )

    def _step(self, visit: _Visit, skew_ms: int) -> Simulated:
        if visit.user is not None and not visit.introduced:
            return self._identify(visit, skew_ms)
        if visit.user is None and self._dice.roll() < SIGN_IN:
            visit.user = f"u-{visit.person}"
            return self._identify(visit, skew_ms)
        visit.over = self._dice.roll() < LEAVE
        name, properties = self._action(visit)
        return self._record(visit, {"type": "track", "event": name, "properties": properties}, skew_ms)

    def _identify(self, visit: _Visit, skew_ms: int) -> Simulated:
        visit.introduced = True
        self._known.add(visit.person)
        number = visit.person
        first_name = FIRST_NAMES[number % len(FIRST_NAMES)]
        traits: dict[str, Any] = {
            "email": f"u-{number}@example.com",
            "first_name": first_name,
            "timezone": ZONES[number % len(ZONES)],
        }
        if number % 3 == 0:
            traits["push_token"] = f"push-{number}"
        if number % 11 == 0:
            traits["consent"] = {"email": False}
        return self._record(visit, {"type": "identify", "traits": traits}, skew_ms)

    def _action(self, visit: _Visit) -> tuple[str, dict[str, Any]]:
        """Choose the next thing somebody does in a shop; what needs a cart is possible with one only."""
        roll = self._dice.roll()
        cart = {"cart_id": visit.cart}
        if visit.checking_out and roll < ORDER:
            return self._order(visit)
        if visit.items and roll < REMOVE:
            item = visit.items.pop(self._dice.pick(len(visit.items)))
            visit.checking_out = visit.checking_out and bool(visit.items)
            return "Product Removed", cart | PRODUCTS[item]
        if visit.items and roll < LOOK_AT_CART:
            return "Cart Viewed", cart | {"products": [PRODUCTS[item] for item in visit.items]}
        if visit.items and roll < CHECK_OUT:
            visit.checking_out = True
            return "Checkout Started", cart | {"value": _total(visit.items)}
        item = self._dice.pick(len(PRODUCTS))
        if roll > ADD:
            visit.items.append(item)
            return "Product Added", cart | PRODUCTS[item] | {"quantity": 1}
        return "Product Viewed", dict(PRODUCTS[item])

    def _order(self, visit: _Visit) -> tuple[str, dict[str, Any]]:
        revenue, bought = _total(visit.items), [PRODUCTS[item]["product_id"] for item in visit.items]
        visit.items.clear()
        visit.checking_out, visit.over = False, True
        order = {
            "order_id": f"o{visit.cart[1:]}",
            "cart_id": visit.cart,
            "revenue": revenue,
            "currency": "EUR",
        }
        return "Order Completed", order | {"products": [{"product_id": product} for product in bought]}

    def _record(self, visit: _Visit, call: dict[str, Any], skew_ms: int) -> Simulated:
        self._count += 1
        at_ms = int(self._now_ms)
        ids = {"userId": visit.user} if visit.user else {}
        if visit.user is None or (visit.anonymous and call["type"] == "identify"):
            ids["anonymousId"] = visit.device
        event = {
            "messageId": f"m-{self._seed}-{self._count}",
            **call,
            **ids,
            "timestamp": _rfc3339(at_ms + skew_ms),
            "receivedAt": _rfc3339(at_ms),
        }
        return Simulated(at_ms, (visit.user or visit.device).encode(), orjson.dumps(event))


def _total(items: list[int]) -> float:
    return sum(float(str(PRODUCTS[item]["price"])) for item in items)


def _rfc3339(at_ms: int) -> str:
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@functools.lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
