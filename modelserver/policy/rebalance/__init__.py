"""How many engines each model has, and which GPUs move from one model to another.

``demand`` is the entry: from a snapshot to what placement is to do. ``deciding`` has
the rules in their order, ``state`` the values that go in and out, ``scene`` one run
over the fleet, ``measuring`` turns counters into rates, ``pressure`` says what they
mean, ``candidates`` where an engine could be and who may end for it, ``turning``
whether GPUs may go back so soon, ``ledger`` what moves have cost, ``timetable`` when
schedules begin to count, ``transit`` takes moves one step on.
"""
