"""Redis: every key, every lifetime and every script of modelserver stands in here.

``keys`` names the keys, ``scripts`` holds the Lua, ``state`` is the fleet's state as
launcher, control and command line use it, ``delivery`` is what a worker does with
messages and results. Holds for Redis >= 7.2 and Valkey >= 8.
"""

from modelserver.store.delivery import Deliveries
from modelserver.store.keys import Keys
from modelserver.store.state import Store, connect

__all__ = ["Deliveries", "Keys", "Store", "connect"]
