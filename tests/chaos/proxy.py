"""A TCP proxy whose way can be slowed, stalled, cut and led elsewhere while it is used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

CHUNK_BYTES = 1 << 16
LOOK_S = 0.02


class Proxy:
    """Passes connections on to `target`.

    Its attributes may be set from any thread.

    Attributes
    ----------
    target
        Port of 127.0.0.1 where connections made from now on lead.
    delay_s
        Added to each way.
    stalled
        Nothing passes, and nobody is told.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int, target: int) -> None:
        self._loop = loop
        self.port = port
        self.target = target
        self.delay_s = 0.0
        self.stalled = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, hosts: Sequence[str]) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, list(hosts), self.port)

    def cut(self) -> None:
        """Break all connections there are."""
        self._loop.call_soon_threadsafe(self._abort)

    async def stop(self) -> None:
        """Listen no more."""
        self._server.close()
        self._abort()
        await asyncio.sleep(0)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client.transport.abort()
            return
        self._writers |= {client, server}
        with contextlib.suppress(asyncio.CancelledError):  # the end of the run; asyncio would complain of it
            await asyncio.gather(self._pass(client_reader, server), self._pass(server_reader, client))
        self._writers -= {client, server}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # uvloop's for one that is closed already
            while data := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while self.stalled:
                    await asyncio.sleep(LOOK_S)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
