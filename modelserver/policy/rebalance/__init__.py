"""How many engines each model has, and which GPUs move from one model to another.

``rebalance`` is the entry. ``values`` are what goes in and out, ``measuring`` turns
counters into rates, ``pressure`` says what they mean, ``candidates`` where an engine
could be and who may end for it, ``transit`` how a move goes on, ``deciding`` when one
begins.
"""
