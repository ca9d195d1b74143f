"""What runs inside ``celery -A tasks worker``: requests, from their queue to an answer.

One asyncio loop in a thread of its own carries a request all the way; Celery's main
thread keeps remote control, heartbeats and events, and may wait for Redis as long as it
likes.

Celery's side:

- ``celery_hooks``: application, requests, events and subscriptions in place of Celery's
- ``pool``: Celery's pool interface over loop and bridge
- ``bridge``: Celery's tracer, which is synchronous, on the loop
- ``service``: puts everything below together, and takes it apart

Messages:

- ``intake``: pulls exactly what the engines have room for
- ``reading``: a pulled message, or why nobody can execute it
- ``trials``: requests under suspicion of killing workers, one at a time
- ``courier``: the messages that are held, and what becomes of them
- ``carrier``: results, acknowledgements and samples in batches, result first
- ``held_message``: a message that is held, and what it becomes if it goes back
- ``unwanted``: revoked and expired requests, answered in batches
- ``lease``: this worker's sign of life, and what dead workers left behind
- ``server_clock``: the time by the store's clock
- ``task_times``: times in a message's headers, as Celery means them

Engines and requests:

- ``fleet_refusal``: the fleet that it does not obey
- ``fleet_follower``: keeps up with the fleet, what is down, and the engines' reports
- ``engine_slot``: one engine, as this worker sees it
- ``roster``: the engines of this host and what is in flight on them
- ``urgent``: how many places are kept free for urgent requests
- ``partners``: agrees with the host's other workers on each one's share of the engines
- ``shares``: what each of them is to have
- ``process_identity``: sees at once when another worker is gone
- ``fallbacks``: where requests go whose model is down
- ``executor``: one request against the engines, again and elsewhere where that helps
- ``bundles``: many rows of a run in one message, each executed like a request
- ``open_bundle``: one of them, whose rows are under way
- ``hedges``: a second engine for a request that takes longer than most
- ``attempt``: one request on one engine, which leaves a sample
- ``streams``: answers that are told in parts while they are generated
- ``coalescer``: single texts to embed, sent together
- ``work``: one request under way, and what has been tried
- ``retries``: what happens between two attempts of a request
- ``carried_tries``: the attempts so far, in the message's header
- ``probes``: one token of an engine that failed, where nobody else asks it
- ``budget``: a bound on retries
- ``crashes``: finds the request that kills engines
- ``failures``: whose an engine's failures are
- ``own_fault``: finds the request that no engine can answer
"""
