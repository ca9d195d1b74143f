"""The launcher: one process per GPU host that makes the wishes for its engines true.

- ``supervisor``: the one loop over all keepers; signals, wishes, reports, adoption
- ``store_link``: calls the store from one thread, so that the loop never waits for it
- ``wishes``: which engines end, by what the store says
- ``alarms``: what people are told where control cannot
- ``fleet_sync``: which fleet is in force
- ``engine``: one engine, from its start to its end; begin with ``engine.keeper``
- ``engine_types``: how each type of engine is run
- ``startup_log``: what the log of a starting engine says
- ``host``: one owner of each effect on the host: processes, GPUs, ports, containers
- ``environments``: how engines are installed
- ``weights_pull``: what ``modelserver weights pull`` starts

The table of an engine's states is ``modelserver.policy.lifecycle``.

What must stay true:

- READY means that a token came back, and ``alive_at`` is when one last did.
- Nothing in the loop waits. What takes time is a task beside it.
- After the end of an engine's head process, all of its processes go before the next
  start: SGLang leaves schedulers behind that hold GPU memory.
- Engines outlive the launcher: they end with SIGTERM or SIGINT to it, not with its
  crash, and not with SIGQUIT or SIGHUP. The next launcher adopts them by pid and
  start time, and trusts them again after a token.
- The store may be away: engines go on, and are started again when it is back.
"""
