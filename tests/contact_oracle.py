"""What a person may be sent, said a second time: from the events that were read and the decisions that came out.

Nothing of `decisioning` is used here. People are sets of ids, times are `datetime`s, zones come from `zoneinfo`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

DEFAULT_ZONE, ONE_ZONE = "Europe/Berlin", {"JP": "Asia/Tokyo"}
QUIET = {"email": ("21:00", "08:00"), "push": ("01:30", "02:30"), "in_app": ("", "")}
TRAIT = {"email": "email", "push": "push_token"}
CHANNEL_OF = {"Email": "email", "Push": "push"}
ROLLING = {"any": (4, timedelta(hours=24)), "push": (1, timedelta(hours=1))}
TRANSACTIONAL, COUNTED = ("receipt", "parcel"), ("cart", "news", "parcel")


@cache
def zone(name: str) -> ZoneInfo | None:
    """A zone of the pinned package; the machine's own may be older."""
    file = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    if not file.is_file():
        return None
    with file.open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


@dataclass
class Sent:
    """A message that went out."""

    decision_id: str
    campaign: str
    channel: str
    at: datetime
    takes_room: bool


@dataclass
class Somebody:
    """One person, by whatever ids."""

    traits: dict[str, tuple[datetime, Any]] = field(default_factory=dict)
    consent: dict[str, tuple[datetime, bool]] = field(default_factory=dict)
    left: dict[str, datetime] = field(default_factory=dict)
    left_all: tuple[datetime, bool] | None = None
    blocked: set[str] = field(default_factory=set)
    zone: tuple[datetime, str] | None = None
    sent: list[Sent] = field(default_factory=list)

    def of(self, trait: str) -> Any:
        """Value of a trait."""
        return self.traits.get(trait, (None, None))[1]

    def where(self) -> ZoneInfo:
        """The ladder."""
        for name in (self.of("timezone"), self.zone and self.zone[1], ONE_ZONE.get(self.of("country")), DEFAULT_ZONE):
            found = zone(name) if name else None
            if found is not None:
                return found
        raise AssertionError

    def add(self, other: Somebody) -> None:
        """What was another's is this person's."""
        for name, trait in other.traits.items():
            if name not in self.traits or self.traits[name][0] < trait[0]:
                self.traits[name] = trait
        for channel, (at, agreed) in other.consent.items():
            mine = self.consent.get(channel)
            if mine is None or (mine[1], at) > (agreed, mine[0]) or (mine[1] == agreed and at > mine[0]):
                self.consent[channel] = (at, agreed) if mine is None or mine[1] >= agreed else mine
        for channel, at in other.left.items():
            self.left[channel] = max(at, self.left.get(channel, at))
        said = [one for one in (self.left_all, other.left_all) if one]
        self.left_all = max(said, key=lambda one: (one[1], one[0]), default=None)
        self.blocked |= other.blocked
        self.zone = max([z for z in (self.zone, other.zone) if z], default=None)
        self.sent += other.sent


class Oracle:
    """Watches what is read and what is decided, and objects."""

    def __init__(self) -> None:
        self.people: dict[str, Somebody] = {}
        self.owner: dict[str, str] = {}
        self.seen: set[str] = set()
        self.decided: dict[str, str] = {}
        self.held_out: dict[tuple[str, str], bool] = {}

    def canonical(self, name: str) -> str:
        """Whose id it is."""
        while name in self.owner:
            name = self.owner[name]
        return name

    def read(self, event: dict[str, Any], known: tuple[str, ...]) -> None:
        """Take an event in; `known` are ids that are nobody's device."""
        if "userId" in event and event["messageId"] in self.seen:
            return
        self.seen.add(event["messageId"])
        name = self.canonical(event.get("userId") or event["anonymousId"])
        person, at = self.people.setdefault(name, Somebody()), datetime.fromisoformat(event["timestamp"])
        spoken = event.get("context", {}).get("timezone")
        if spoken and (person.zone is None or person.zone[0] <= at):
            person.zone = at, spoken
        if event["type"] == "identify":
            self._told(person, event["traits"], at)
        other = event.get("previousId") or (event.get("anonymousId") if event["type"] == "identify" else None)
        if other is not None:
            self._united(name, other, alias=event["type"] == "alias", known=known)
        if event["type"] == "track":
            self._happened(person, event["event"], event["properties"], at)

    def _told(self, person: Somebody, traits: dict[str, Any], at: datetime) -> None:
        for name, value in traits.items():
            if name == "unsubscribed":
                if person.left_all is None or person.left_all[0] <= at:
                    person.left_all = at, value
            elif name != "consent" and (name not in person.traits or person.traits[name][0] <= at):
                person.traits[name] = at, value
        for channel, agreed in traits.get("consent", {}).items():
            if channel in person.consent and person.consent[channel][0] > at:
                continue
            person.consent[channel] = at, agreed
            if agreed and channel in person.left and person.left[channel] < at:
                del person.left[channel]

    def _united(self, name: str, other: str, *, alias: bool, known: tuple[str, ...]) -> None:
        owner = self.canonical(other)
        if owner == name:
            return
        if other in self.owner and not (alias and other in known):
            self.owner[other] = name  # a shared device
            return
        self.people.setdefault(name, Somebody()).add(self.people.pop(owner, Somebody()))
        self.owner[owner] = name

    def _happened(self, person: Somebody, name: str, properties: dict[str, Any], at: datetime) -> None:
        channel = CHANNEL_OF.get(name.split(maxsplit=1)[0], "")
        if name == "Unsubscribed":
            left = properties["channel"]
            person.left[left] = max(at, person.left.get(left, at))
        elif name.endswith("Spam") or properties.get("bounce_type") == "hard":
            person.blocked.add(channel)
        if name.endswith("Bounced"):
            for sent in person.sent:
                sent.takes_room = sent.takes_room and sent.decision_id != properties.get("decision_id")

    def decide(self, entry: dict[str, Any]) -> None:
        """Object to a decision that must not have been made."""
        name, campaign, number = entry["user_id"], entry["campaign"], entry["decision_id"]
        assert number not in self.decided, "decided twice"
        self.decided[number] = entry["action"]
        assert self.canonical(name) == name, "an id that is somebody else's"
        if entry["action"] == "suppress":
            assert entry["reasons"]
            return
        if campaign not in TRANSACTIONAL:
            out = entry["action"] == "holdout"
            assert self.held_out.setdefault((name, campaign), out) == out, "a person's group changed"
        if entry["action"] != "send":
            return
        at, person = datetime.fromisoformat(entry["decided_at"]), self.people[name]
        sent = Sent(number, campaign, entry["channel"], at, campaign in COUNTED)
        self._may(person, sent, entry)
        person.sent.append(sent)
        if campaign not in TRANSACTIONAL:
            self._may_promote(person, sent)

    def _may(self, person: Somebody, sent: Sent, entry: dict[str, Any]) -> None:
        """What holds for every message."""
        assert sent.at >= datetime.fromisoformat(entry["due_at"]), "before it was due"
        assert entry["expires_at"] is None or sent.at <= datetime.fromisoformat(entry["expires_at"]), "expired"
        assert sent.channel not in person.blocked, "to an address that bounces, or to one who complained"
        address = person.of(TRAIT[sent.channel]) if sent.channel in TRAIT else entry["user_id"]
        assert address, "without an address"
        assert entry["address"] == address
        near = [one for one in person.sent if one.campaign == "cart" and sent.at - one.at < timedelta(hours=6)]
        assert sent.campaign != "cart" or not near, "within the cooldown"

    def _may_promote(self, person: Somebody, sent: Sent) -> None:
        """What holds for marketing; the message itself is among those sent."""
        channel = sent.channel
        assert person.consent.get(channel, (None, True))[1], "without consent"
        assert channel not in person.left, "after an unsubscription"
        assert person.left_all is None or person.left_all[1] is not True, "after an unsubscription from everything"
        where = person.where()
        wall = sent.at.astimezone(where)
        start, end = QUIET[channel]
        clock = f"{wall:%H:%M}"
        quiet = start <= clock < end if start <= end else clock >= start or clock < end
        assert not quiet or wall.fold, f"at {wall} in quiet hours"
        taken = [one for one in person.sent if one.takes_room]
        for scope in ("any", channel) if channel in ROLLING else ("any",):
            most, per = ROLLING[scope]
            found = [o for o in taken if scope in ("any", o.channel) and sent.at - per < o.at <= sent.at]
            assert len(found) <= most, f"more than {most} on {scope} within {per}"
        days = [one.at.astimezone(where).date() for one in taken if one.channel == "email"]
        assert channel != "email" or days.count(wall.date()) <= 2, "more than twice on one day"
        weeks = [one.at.astimezone(where).isocalendar()[:2] for one in taken]
        assert weeks.count(wall.isocalendar()[:2]) <= 6, "too often in a week"
