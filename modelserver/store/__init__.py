"""Redis: every key, every lifetime and every script of modelserver stands in here.

``keys`` names the keys, ``batch`` holds the values that a delivery carries,
``histograms`` says how times are counted. ``scripts`` is the Lua, ``server`` the
connection, ``fleet`` the fleet's state, ``messages`` what becomes of messages and
results, ``runs`` many requests as one job.
Holds for Redis >= 7.2 and Valkey >= 8.
"""

from modelserver.store.keys import Keys
from modelserver.store.server.state import Store, connect

__all__ = ["Keys", "Store", "connect"]
