"""What must hold of people who were erased or of whom nothing was heard: nothing is left of them."""

from __future__ import annotations

from collections.abc import Iterator

from decisioning import profile as profiles
from decisioning.profile import Profile
from features.rows import decode
from tests.simulated_taken import skipped_stories
from tests.simulation import World


def nothing_is_left_of_the_erased(world: World) -> Iterator[str]:
    """Under each of their ids there is the mark alone, and nobody's profile names them."""
    skipped = skipped_stories(world)
    forgotten = {person for person, story in world.work.forgotten.items() if story not in skipped}
    for redis in world.redis:
        for key, data in redis.profiles.items():
            profile = profiles.decode(data)
            if key in forgotten and profile != Profile(erased_ms=profile.erased_ms):
                yield f"{key} was erased and has {profile}"
            if not forgotten.isdisjoint([profile.moved_to, *profile.aliases]):
                yield f"{key} names somebody who was erased: {profile}"
    left = forgotten - {key for redis in world.redis for key in redis.profiles}
    if left:
        yield f"no mark of {sorted(left)}"


def the_idle_are_forgotten(world: World) -> Iterator[str]:
    """Nothing is left of whoever nothing was heard of lately."""
    skipped = skipped_stories(world)
    idle = {person for person, story in world.work.idle.items() if story not in skipped}
    for redis in world.redis:
        for person in idle & redis.rows.keys():
            if person in redis.profiles or decode(redis.rows[person]).tobytes().strip(b"\0"):
                yield f"{person} is not forgotten"
