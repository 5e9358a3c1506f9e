"""What rules and texts may read of a person: `user.…`, computed only when it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from decisioning import names
from decisioning.plan import Plan
from decisioning.profile import Profile, counts

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UserView(Mapping[str, Any]):
    """`user` in expressions and texts; every group of names costs nothing until it is asked for.

    Parameters
    ----------
    person
        The canonical id.
    features
        Gives the decayed features by name.
    fatigue
        In [0, 1).
    propensity
        Gives what propensity models predict, by what it is of; what no model has learned is absent.
    """

    __slots__ = ("_counts", "fatigue", "features", "now_ms", "person", "profile", "propensity")

    def __init__(
        self,
        person: str,
        profile: Profile,
        now_ms: int,
        fatigue: float,
        features: Callable[[], Mapping[str, float]],
        propensity: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.person, self.profile, self.now_ms, self.fatigue = person, profile, now_ms, fatigue
        self.features, self.propensity = features, propensity
        self._counts: dict[str, float | int] | None = None

    def __getitem__(self, name: str) -> Any:
        group = _GROUPS.get(name)
        if group is not None:
            return group(self)
        if name in names.TRAITS:
            value = self.profile.trait(name)
            if value is None:
                raise KeyError(name)
            return value
        if self._counts is None:
            self._counts = counts(self.profile, self.now_ms)
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        present = (name for name in names.TRAITS if name != "consent" and self.profile.trait(name) is not None)
        return iter((*_GROUPS, *present, *counts(self.profile, self.now_ms)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


_GROUPS: dict[str, Callable[[UserView], Any]] = {
    "id": lambda user: user.person,
    "traits": lambda user: {key: one.value for key, one in user.profile.traits.items() if one.value is not None},
    "consent": lambda user: {key: one.value for key, one in user.profile.consent.items()},
    "features": lambda user: user.features(),
    "fatigue": lambda user: user.fatigue,
    "propensity": lambda user: user.propensity(),
}


def environment(plan: Plan, body: dict[str, Any], user: UserView, now_ms: int) -> dict[str, Any]:
    """All names that expressions and texts of a campaign may use."""
    return {
        "event": body,
        "user": user,
        "campaign": {"id": plan.id},
        "now": _EPOCH + timedelta(milliseconds=now_ms),
    }
