"""The engines of a worker's host, and how much of each is this worker's.

- ``fleet_follower``: keeps up with the fleet, what is down, and the engines' reports
- ``fleet_refusal``: the fleet that it does not obey
- ``engine_slot``: one engine, as this worker sees it
- ``roster``: all of them, what is in flight on them, and who gets the next request
- ``urgent``: how many places are kept free for urgent requests
- ``partners``: agrees with the host's other workers on each one's share of the engines
- ``shares``: what each of them is to have
- ``process_identity``: sees at once when another worker is gone
- ``fallbacks``: where requests go whose model is down
- ``failures``: whose an engine's failures are
- ``probes``: one token of an engine that failed, where nobody else asks it
"""
