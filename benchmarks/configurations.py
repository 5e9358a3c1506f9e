"""The jobs of the benchmarks, and how the worker is configured for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.traffic import CLICKS, SHOP, Line

JOB = """\
version: 1
timezone: UTC
channels: {in_app: {address: id}}
campaigns:
  - id: added
    trigger: {event: Product Added, delay: 0s, per: properties.line_id}
    channels: [in_app]
    variants: {subject: [{id: a, text: "It is in your cart"}]}
"""
"""The plain job: one decision for each `Product Added`."""

FLOW = """\
version: 1
timezone: UTC
quiet_hours: {from: "23:58", to: "23:59"}  # looked at every time, and hardly ever in the way
channels: {in_app: {address: id}, push: {address: push_token}}
caps:
  - {name: daily, channel: any, max: 3, per: 24h}
  - {name: app-day, channel: in_app, max: 2, per: day}
campaigns:
  - id: cart
    trigger:
      event: Product Added
      delay: 5s
      restart_on: [Product Added, Product Removed]
      cancel_on: [Order Completed]
      max_wait: 3h
    when: "user.orders_30d < 5"
    channels: [in_app, push]
    expires_after: 12h
    variants:
      subject:
        - {id: plain, text: "Still thinking it over, {{ user.first_name | default: 'there' }}?"}
        - {id: offer, text: "{{ event.properties.category | capitalize }} are waiting"}
    goal: {event: Order Completed, within: 72h, value: properties.revenue}
    policy: {algorithm: thompson, explore: 0.05}
"""
"""The whole flow: delay, restart, cancel, caps, quiet hours, two subjects, a goal."""

FEATURES = JOB.replace("Product Added", "Never Happens")
"""Only decode and fold: what the plain job costs without its decisions."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, and how one sees from outside that it was.

    Attributes
    ----------
    mix
        Percent of the events by name.
    configuration
        Of the worker.
    topic
        Where its outcomes are published.
    wanted, found
        What must come out for some events; which of that a record of `topic` is.
    """

    mix: dict[str, int]
    configuration: str
    topic: str
    wanted: Callable[[Sequence[Line]], set[str]]
    found: Callable[[dict[str, Any]], str]


def _asked_for(decision: dict[str, Any]) -> str:
    """Message id of the event that asked for a decision; peers take it for the decision's own."""
    trigger = decision.get("trigger")
    found: str = decision["decision_id"] if trigger is None else trigger["message_id"]
    return found


PLAIN = Job(
    CLICKS, JOB, "decisions", lambda lines: {x.message_id for x in lines if x.event == "Product Added"}, _asked_for
)
FOLD_ONLY = Job(CLICKS, FEATURES, "decisions", lambda _: set(), _asked_for)
WHOLE = Job(
    SHOP,
    FLOW,
    "decision-log",
    lambda lines: {x.person for x in lines if x.event == "Product Added"},
    lambda x: str(x["user_id"]),
)
