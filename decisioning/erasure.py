"""Forgetting a person: what is left of them, in how many partitions, and what may not bring them back.

Of an erased id a mark is left: the time up to which its events are as if they had never been, and the hashes of its
latest message ids, by which repeats of the `delete` and of events without a time are known. The person's other ids
were forwarding addresses that named the person; their homes are told by `erase` messages to leave a mark, too. What
was on its way to the person meanwhile (an id that was being merged) is not taken in, and its home is told the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from decisioning import profile as profiles
from decisioning.effects import State
from decisioning.events import Event, claimed_ms, text
from decisioning.lifecycle import CLICKED, DELIVERED, ENGAGEMENT, OPENED
from decisioning.localtime import DAY_MS
from decisioning.messages import Message, outgoing
from decisioning.profile import Profile
from decisioning.work import Work

ECHO_MS: Final = 30 * DAY_MS
"""How long after an erasure what mail readers report of messages from before it is expected, and means nobody."""
_ECHOES: Final = (DELIVERED, OPENED, CLICKED)


def forget(work: Work, person: str, erased_ms: int) -> None:
    """Leave nothing of an id but the mark; with 0 not even that, unless there is one."""
    marked_ms = max(erased_ms, work.profile(person).erased_ms or 0)
    work.replace(person, Profile(erased_ms=marked_ms or None))
    work.mark(person, moved=False, erased=marked_ms > 0, known=False, awaited=False, clear=True)
    if not marked_ms:
        work.forget_messages(person)


def unlink(work: Work, person: str, aliases: Sequence[str], erased_ms: int, cause: str) -> None:
    """Forget other ids of a person, here and at their homes, as `forget` does; `cause` is what asked for it."""
    ids = [person, *aliases]
    for alias in aliases:
        message = Message("erase", f"{cause}/erase", alias, erased_ms, path=ids)
        if alias in work.slot:
            take(work, message)
        else:
            work.effects.internal.append(outgoing(message, work.state.partitions))


def take(work: Work, message: Message) -> None:
    """Forget an id of an erased person, unless it became somebody else's meanwhile."""
    if work.profile(message.person).moved_to in message.path:
        forget(work, message.person, message.at_ms)


def is_past(profile: Profile, event: Event) -> bool:
    """Whether an event belongs to what was erased: it happened before, or reports on a message from before."""
    if profile.erased_ms is None:
        return False
    if claimed_ms(event) <= profile.erased_ms:
        return True
    _, what = ENGAGEMENT.get(event.event or "", ("", ""))
    named = text(event.props, "decision_id")
    if what not in _ECHOES or named is None or event.at_ms > profile.erased_ms + ECHO_MS:
        return False
    return all(send.decision_id != named for send in profile.sends)


def is_stranger(profile: Profile, path: Sequence[str]) -> bool:
    """Whether what came through these ids came by an address from before the person was erased.

    A person remembers so many ids; the homes of those beyond could not be told when it was.
    """
    return profile.erased_ms is not None and bool(path) and set(path).isdisjoint(profile.aliases)


def other_ids(state: State, people: Iterable[str]) -> list[str]:
    """The other ids of whoever these ids belong to, as far as they are loaded."""
    found: dict[str, None] = {}
    for person in people:
        seen: set[str] = set()
        here: str | None = person
        while here is not None and here not in seen:
            seen.add(here)
            profile = profiles.decode(state.profiles.get(here))
            found.update(dict.fromkeys(profile.aliases))
            here = profile.moved_to
    return list(found)
