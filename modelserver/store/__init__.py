"""Redis: every key, every lifetime and every script of modelserver stands in here.

``keys`` names the keys, ``scripts``, ``queue_scripts``, ``run_scripts``,
``hosted_scripts`` and ``state_scripts`` hold the Lua, ``connections`` opens connections
that leave a server which takes no writes, ``trouble`` says why one cannot be used.
Holds for Redis >= 7.2 and Valkey >= 8.

Launchers, control and command line (blocking): ``state`` has ``Store``, the connection;
the others are functions of it, by what they read and write. ``hosts`` and ``engines``
are what launchers report, ``measurements`` what engines measure, ``histograms`` how
times are counted, ``workers`` what workers report and the queues, ``control`` control's
lock, wishes and memory, ``fleet`` the applied fleet, ``decisions`` the log of
decisions, ``availability`` how the models stand, ``alerts``, ``orders`` the operators'
orders, ``dead_letters``, ``server`` how the server keeps its data.

Workers (asyncio): ``delivery`` is what one does with messages and results, ``batch``
holds the values that it carries, ``embedded`` reads what follows a task, ``reaps``
takes over what dead workers held, and ``memory`` watches the server's memory.
``shares`` divides the limits of engines among the workers of one host.
``revoking`` keeps what was revoked, ``cancelling`` takes waiting requests out,
``expired`` those that were answered at their deadline.
``runs`` is what whoever feeds a run writes and reads, ``hosted`` what is kept of runs
that were submitted.
``streams`` keeps the parts of answers, ``api_keys`` who may use OpenAI's API.
"""

from modelserver.store.keys import Keys
from modelserver.store.state import Store, connect

__all__ = ["Keys", "Store", "connect"]
