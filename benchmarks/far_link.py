"""A relay that lies before a local server what lies before a distant one: delay and bandwidth.

    python -m benchmarks.far_link LISTEN_PORT TARGET_PORT ROUND_TRIP_MS MB_PER_S

Both directions of every connection have the bandwidth to themselves, and a byte arrives half a
round trip after it was sent. Opening a connection takes a round trip, as the handshake of TCP.
"""

import asyncio
import sys
from contextlib import suppress
from typing import Final

from benchmarks.processes import HOST

ROUND_TRIP_MS: Final = 20
MB_PER_S: Final = 50
_PIECE: Final = 1 << 18
_IN_FLIGHT: Final = 64
"""Pieces of each direction that have been sent and have not arrived."""


class _Direction:
    """One direction of a connection: pieces on their way, each with the time of its arrival."""

    def __init__(self, delay: float, rate: float) -> None:
        self._delay = delay
        self._rate = rate
        self._pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
        self._clock = asyncio.get_running_loop().time

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Until the source has ended and all of it has arrived."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take(source))
            both.create_task(self._deliver(target))

    async def _take(self, source: asyncio.StreamReader) -> None:
        piece = b"first"
        while piece:
            piece = await source.read(_PIECE)
            await self._pieces.put((self._clock() + self._delay, piece))

    async def _deliver(self, target: asyncio.StreamWriter) -> None:
        free_at = 0.0
        while True:
            arrival, piece = await self._pieces.get()
            free_at = max(arrival, free_at) + len(piece) / self._rate
            await asyncio.sleep(free_at - self._clock())
            if not piece:
                target.write_eof()
                return
            target.write(piece)
            await target.drain()


async def serve(listen: int, target: int, round_trip: float, rate: float) -> None:
    """Relay 127.0.0.1:`listen` to `target`; `round_trip` in seconds, `rate` in bytes per second."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip)
        with suppress(ConnectionError, ExceptionGroup):
            there, back = await asyncio.open_connection(HOST, target)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_Direction(round_trip / 2, rate).carry(reader, back))
                    both.create_task(_Direction(round_trip / 2, rate).carry(there, writer))
            finally:
                back.close()
        writer.close()

    server = await asyncio.start_server(connected, HOST, listen, limit=4 * _PIECE)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    listen, target, milliseconds, megabytes = sys.argv[1:]
    asyncio.run(serve(int(listen), int(target), float(milliseconds) / 1e3, float(megabytes) * 1e6))
