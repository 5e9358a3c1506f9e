"""What every worker is told, whoever owns which partition: stock, campaigns that are paused, models that are pinned.

Each is a fold over a compacted topic, read from its beginning. Records that say nothing understandable change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import orjson

from decisioning import events
from decisioning.effects import Outgoing, Pin, Stock, Switch
from decisioning.events import Event
from decisioning.localtime import iso

STOCK_EVENTS: Final = {"Product Restocked": True, "Product Out of Stock": False}
PAUSE: Final = "pause:"  # keys of `control` that pause a campaign
PIN: Final = "pin:"  # and that pin a model

_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_stock = msgspec.json.Decoder(Stock)
_switch = msgspec.json.Decoder(Switch)
_pin = msgspec.json.Decoder(Pin)


def stock_records(told: Iterable[Event], known: Mapping[str, Stock]) -> list[Outgoing]:
    """What `catalog` is to say after events about products.

    What is older in event time than what is known already is left out: compaction keeps the record that was written
    last, so that one must not be the older one.
    """
    said: dict[str, Stock] = {}
    records = []
    for event in told:
        product = events.text(event.props, "product_id") or event.person.removeprefix("product:")
        stock = Stock(product_id=product, in_stock=STOCK_EVENTS[event.event or ""], at=iso(event.at_ms))
        if _is_news(stock, said.get(product) or known.get(product)):
            said[product] = stock
            records.append(Outgoing(product.encode(), msgspec.json.encode(stock)))
    return records


def take_stock(stock: dict[str, Stock], key: bytes | None, value: bytes | None) -> bool:
    """Take in a record of `catalog`: the latest by event time counts, whoever wrote it; without a value none is known.

    Returns
    -------
    bool
        Whether the record was understood.
    """
    try:
        if not value:
            stock.pop((key or b"").decode(), None)
            return True
        said = _stock.decode(value)
    except _UNREADABLE:
        return False
    if _is_news(said, stock.get(said.product_id)):
        stock[said.product_id] = said
    return True


def switch_record(campaign: str, switch: Switch) -> Outgoing:
    """What `control` is to say of a campaign."""
    return Outgoing(f"{PAUSE}{campaign}".encode(), msgspec.json.encode(switch))


def take_switch(paused: dict[str, Switch], key: bytes | None, value: bytes | None) -> bool:
    """Take in a record of `control`: the last one of a campaign counts, without a value it runs.

    Returns
    -------
    bool
        Whether the record was understood; settings of other kinds are, and mean nothing here.
    """
    try:
        setting = (key or b"").decode()
        if not setting.startswith(PAUSE):
            return True
        switch = _switch.decode(value) if value else None
    except _UNREADABLE:
        return False
    campaign = setting.removeprefix(PAUSE)
    if switch is not None and switch.paused:
        paused[campaign] = switch
    else:
        paused.pop(campaign, None)
    return True


def pin_record(model: str, pin: Pin) -> Outgoing:
    """What `control` is to say of a model."""
    return Outgoing(f"{PIN}{model}".encode(), msgspec.json.encode(pin))


def take_pin(pins: dict[str, Pin], key: bytes | None, value: bytes | None) -> bool:
    """Take in a record of `control`: the last one of a model counts, without a value its latest version does.

    Returns
    -------
    bool
        Whether the record was understood; settings of other kinds are, and mean nothing here.
    """
    try:
        setting = (key or b"").decode()
        if not setting.startswith(PIN):
            return True
        pin = _pin.decode(value) if value else None
    except _UNREADABLE:
        return False
    model = setting.removeprefix(PIN)
    if pin is not None and pin.version is not None:
        pins[model] = pin
    else:
        pins.pop(model, None)
    return True


def audited(decision_id: str, campaign: str, action: str, said: Switch | Pin, **more: str | int | None) -> Outgoing:
    """The record in `decision-log` of who paused or resumed a campaign, or pinned a model of it, and why."""
    record: dict[str, object] = {
        "schema": 1,
        "decision_id": decision_id,
        "campaign": campaign,
        "action": action,
        "user_id": None,
        "decided_at": said.at,
        "reasons": [],
        "by": said.by,
        "note": said.reason,
        **more,
    }
    return Outgoing(f"campaign:{campaign}".encode(), orjson.dumps(record))


def _is_news(stock: Stock, known: Stock | None) -> bool:
    """Whether it is not older than what is known; times of this form sort as texts."""
    return known is None or stock.at >= known.at
