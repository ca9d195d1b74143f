"""Control's decisions in simulated hours: the real decisions in small worlds.

How they are run:

- ``__main__``: ``python -m tests.scenarios [NAME]``.
- ``test_control``, ``test_requests``: one seed of most, as tests.

A world that starts and stops engines:

- ``world``: hosts and engines of one model.
- ``cases``: healthy, hung, lost, short of GPUs.

A world whose engines are slow, fail and hang:

- ``fleet``: hosts, models, requests, launchers and control.
- ``engine``: a simulated engine.
- ``slots``: an engine with what is known of it.
- ``traffic``: requests.
- ``workers``: hosts' workers, which pull requests and try them again.
- ``store``: what is kept for control.
- ``staging``: how scenarios begin and end.
- ``control``: the acceptance scenarios.
- ``variations``: other fleets, loads and faults.
- ``weather``: speeds, loads and mixes that change all the time.
- ``poison``: requests at which any engine fails.
- ``stutter``: engines that stand still again and again.
- ``bands``: engines that are slow for a kind of request.
- ``table``: the tables of all these.

A world whose GPUs move between models:

- ``moves_world``: models, their queues and control.
- ``moves_engine``: an engine of it.
- ``moves``: the scenarios.
- ``turns``: load that changes sides, with every period.
- ``rank``: models that go before others, and schedules.
"""
