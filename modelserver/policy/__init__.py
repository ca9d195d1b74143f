"""Decisions as pure functions of values: no clock, no randomness, no Redis, no system.

What control decides:

- ``snapshot``: what a decision is made from.
- ``clock_steps``: the same where the server's clock was set back.
- ``decide``: the entry; from a snapshot to actions, and from actions to wishes.
- ``actions``: what a decision says is to be done.
- ``placement``: where engines go.
- ``rebalance``: how many engines each model has, and whose GPUs it gets.
- ``health``: whether an engine is slow, failing or hung, and what follows.
- ``orders``: what operators have ordered: drain, pause, drain-host and move.
- ``rolling``: restarts for a changed fleet, a few engines at a time.
- ``availability``: whether a model can answer, and what its requests do if not.

What is kept of decisions:

- ``decision_log``: the values that an action was decided from.
- ``replay``: a decision and its snapshot as JSON, to be made again.

What else is decided by values alone:

- ``lifecycle``: the table of an engine's states, for its launcher.
- ``changes``: which engines a changed fleet file starts, stops and restarts.
- ``troubles``: what people are told of, and when.
- ``convergence``: whether a fleet has become what was applied.
"""
