"""Which records the steps of a simulation took in, and what that leaves open where somebody moved the offsets."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulated_work import EVERYBODYS
from tests.simulation import World

Spot = tuple[str, int, int]  # input, partition, offset


def taken_in(world: World) -> Iterator[Spot]:
    """Each record, as often as a step took it in."""
    for number in range(world.partitions):
        for start, commit in world.kafka.steps(number):
            assert commit.marker is not None
            for name, end in commit.marker.offsets.items():
                yield from ((name, number, offset) for offset in range(start[name], end))


def message_of(world: World, spot: Spot) -> str:
    """Of a record of `events`; empty for others."""
    name, number, offset = spot
    slot = world.kafka.inputs[name, number].slots[offset]
    return world.work.ids.get(slot[1].value or b"", "") if slot is not None else ""


def skipped_stories(world: World) -> set[int]:
    """Stories of which somebody's hand skipped a record: nothing is known of how they end."""
    if world.operator != "forward":
        return set()
    taken = set(taken_in(world))
    spots = [(*place, offset) for place, journal in world.kafka.inputs.items() for offset in range(len(journal.slots))]
    skipped = {message_of(world, spot) for spot in spots if spot not in taken} - {""}
    stories = {world.work.stories[message] for message in skipped}
    return set(world.work.stories.values()) if EVERYBODYS in stories else stories


def repeated_stories(world: World) -> set[int]:
    """Stories of which a merge may have come twice, because somebody moved the offsets of `internal` back."""
    return world.work.uniting if world.operator == "back" else set()
