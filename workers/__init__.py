"""What runs inside ``celery -A tasks worker``: requests, from their queue to an answer.

One asyncio loop in a thread of its own carries a request all the way; Celery's main
thread keeps remote control, heartbeats and events, and may wait for Redis as long as it
likes. Where to find what:

- ``bridge``: Celery's tracer, which is synchronous, on the loop
- ``pool``: Celery's pool interface over loop and bridge
- ``courier``: results, acknowledgements and samples in batches, result first
- ``lease``: this worker's sign of life, and what dead workers left behind
- ``roster``: the engines of this host and what is in flight on them
- ``intake``: pulls exactly what the engines have room for
- ``executor``: one request against the engines, again and elsewhere where that helps
- ``service``: puts the above together; ``steps`` hooks it into Celery's worker
"""
