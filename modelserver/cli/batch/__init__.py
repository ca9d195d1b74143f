"""Files of requests, on the command line.

``group`` has the subcommands of ``batch``: ``run`` is the one that does it here;
``hosted``, ``listing`` and ``watch`` are for runs that the fleet carries out. ``panel``
shows a run while it goes on, ``report`` what came of it.
"""
