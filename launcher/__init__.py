"""The launcher: one process per GPU host that makes the wishes for its engines true.

To change it, read in this order:

- ``modelserver.policy.lifecycle``: the table of an engine's states. Pure.
- ``keeper``: one engine; its ``tick`` applies the table and does what follows from it,
  with ``starting`` (one start), ``liveness`` (evidence of tokens), ``chores`` (tasks).
- ``supervisor``: the one loop over all keepers; signals, wishes, reports, adoption.
- ``engines``: how each type of engine is started. The only branch on the type.

Each effect has one owner: ``process`` (processes), ``gpus`` (NVML), ``link`` (the
store, from one thread), ``records`` (files by which the next launcher adopts engines),
``places`` (which engine has which port and GPUs).

What must stay true:

- READY means that a token came back, and ``alive_at`` is when one last did.
- Nothing in the loop waits. What takes time is a task beside it, one per engine.
- After the end of an engine's head process, all of its processes go before the next
  start: SGLang leaves schedulers behind that hold GPU memory.
- Engines outlive the launcher: they die with SIGTERM or SIGINT to it, not with its
  crash, and not with SIGQUIT. Whoever comes next adopts them by pid and start time,
  and trusts them again after a token.
- The store may be away: engines go on and are started again when it is back.
"""
