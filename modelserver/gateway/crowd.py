"""Connections beyond what the process can hold: the oldest that ask nothing are closed.

So that whoever only holds connections keeps nobody out.
"""

import asyncio
import resource

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

#: Most connections at once, where the process may open as many files.
MOST_CONNECTIONS = 20_000
#: Files that a process opens besides its connections.
OTHER_FILES = 256
#: Connections are counted so often, in seconds.
COUNT_SECONDS = 0.2


def allow_connections() -> int:
    """Have the system allow as many connections as it does, and say how many."""
    wanted = MOST_CONNECTIONS + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    can = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < can:
        resource.setrlimit(resource.RLIMIT_NOFILE, (can, hard))
    return max(1, can - OTHER_FILES)


class Crowd:
    """The connections of one server."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: Those with a request under way.
        self.at_work: set[RequestHandler] = set()

    async def keep_small(self, server: web.Server) -> None:
        """Close the oldest idle ones once they are too many, for ever."""
        while True:
            await asyncio.sleep(COUNT_SECONDS)
            held = server.connections
            if len(held) > self._most * 3 // 4:
                idle = [each for each in held if each not in self.at_work]
                for connection in idle[: len(held) - self._most // 2]:
                    connection.force_close()
