"""A worker that kills itself with -9 at a named point of the protocol, once a file asks for it.

`python -m tests.chaos.crashing ORDER …` is `decisioning …`, but for the seams to Kafka and Redis, which look into the
file ORDER before and after each call. Nothing of the worker knows of this.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNDER_WAY_S = 0.001  # for a request to leave; it may be answered by then, which is a crash after it


@dataclass(frozen=True)
class Point:
    """Where a worker dies: before, during or after a call, and what must happen for that call to be made."""

    moment: str
    call: str
    provoked_by: str = ""  # `flush`: Redis emptied; `rebalance`: one worker more or less

    @property
    def order(self) -> str:
        """What the file says."""
        return f"{self.moment} {self.call}"


POINTS = {
    "before READ": Point("before", "read"),
    "transaction begun": Point("after", "begin"),
    "amid the acks": Point("during", "append"),
    "all acked, no offsets": Point("after", "append"),
    "offsets sent, no EndTxn": Point("after", "offsets"),
    "EndTxn sent, no answer": Point("during", "commit"),
    "committed, no APPLY": Point("after", "commit"),
    "APPLY sent, no answer": Point("during", "apply"),
    "APPLY answered": Point("after", "apply"),
    "new producer, no offsets": Point("after", "acquire", "rebalance"),
    "offsets fetched": Point("after", "committed", "rebalance"),
    "view wiped": Point("after", "wipe", "flush"),
    "amid the replay": Point("after", "replay", "flush"),
    "replayed, not sealed": Point("before", "seal", "flush"),
}


class Orders:
    """The file that says where to die; whoever takes it away first does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = path.with_suffix(".taken")

    def give(self, point: Point) -> None:
        """Have a worker die there, and only one."""
        self._taken.unlink(missing_ok=True)
        draft = self._path.with_suffix(".draft")
        draft.write_text(point.order)
        draft.rename(self._path)

    def carried_out(self) -> bool:
        """Whether a worker has taken it; then it is dead, or will be within a moment."""
        return self._taken.exists()

    def withdraw(self) -> None:
        """Take back what nobody has taken."""
        self._path.unlink(missing_ok=True)

    def take(self, order: str) -> bool:
        """Whether this is asked for, and of us."""
        try:
            if self._path.read_text() != order:
                return False
            self._path.rename(self._taken)
        except FileNotFoundError:
            return False
        return True


def wrap(kind: type, call: str, orders: Orders) -> None:
    """Let a method die before, during or after it is carried out."""
    original: Callable[..., Any] = getattr(kind, call)

    @functools.wraps(original)
    async def wrapped(*args: Any, **options: Any) -> Any:
        if orders.take(f"before {call}"):
            die()
        if orders.take(f"during {call}"):
            request = asyncio.ensure_future(original(*args, **options))
            await asyncio.wait([request], timeout=UNDER_WAY_S)
            die()
        result = await original(*args, **options)
        if orders.take(f"after {call}"):
            die()
        return result

    setattr(kind, call, wrapped)


def die() -> None:
    """As if killed from outside, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the command with all points wired."""
    from streams import cli
    from streams.kafka import KafkaLog
    from streams.store import RedisStore

    orders = Orders(Path(sys.argv.pop(1)))
    for point in POINTS.values():
        for kind in (KafkaLog, RedisStore):
            if hasattr(kind, point.call) and not hasattr(getattr(kind, point.call), "__wrapped__"):
                wrap(kind, point.call, orders)
    cli.main()


if __name__ == "__main__":
    main()
