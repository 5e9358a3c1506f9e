"""An event loop whose time passes only when there is nothing else to do: it jumps to the next thing that happens.

Only what tasks, futures, `asyncio.sleep`, `timeout` and `wait` ask of a loop is here: no sockets, threads or signals.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

Call = Callable[..., object]


class Handle:
    """A call that may still be called off."""

    __slots__ = ("args", "call")

    def __init__(self, call: Call, args: tuple[Any, ...]) -> None:
        self.call: Call | None = call
        self.args = args

    def cancel(self) -> None:
        """Call it off."""
        self.call = None


class Jumping:
    """The loop, as far as asyncio notices.

    Contexts are ignored: nothing here has context variables.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._loop = cast("asyncio.AbstractEventLoop", self)
        self._count = itertools.count()  # what is due at the same time comes in the order it was asked for

    def time(self) -> float:
        """Seconds since the beginning."""
        return self.now_s

    def get_debug(self) -> bool:
        """No."""
        return False

    def call_soon(self, callback: Call, *args: Any, context: object = None) -> Handle:
        """Before time passes."""
        handle = Handle(callback, args)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Call, *args: Any, context: object = None) -> Handle:
        """So many seconds from now."""
        return self.call_at(self.now_s + delay, callback, *args)

    def call_at(self, when: float, callback: Call, *args: Any, context: object = None) -> Handle:
        """At a time."""
        handle = Handle(callback, args)
        heapq.heappush(self._timers, (when, next(self._count), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self._loop)

    def create_task(self, coro: Any, **_: Any) -> asyncio.Task[Any]:
        """Run a coroutine beside the others."""
        return asyncio.Task(coro, loop=self._loop)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Of tasks whose process died: nobody is left to hear of it."""

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run until a coroutine ends."""
        task = self.create_task(coroutine)
        events._set_running_loop(self._loop)
        try:
            while not task.done():
                self._turn()
        finally:
            events._set_running_loop(None)
        task.result()

    def _turn(self) -> None:
        """Do the next thing."""
        if self._ready:
            handle = self._ready.popleft()
        else:
            assert self._timers, "nothing will ever happen again"
            when_s, _, handle = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, when_s)
        if handle.call is not None:
            handle.call(*handle.args)
