"""What runs inside ``celery -A tasks worker``: requests, from their queue to an answer.

One asyncio loop in a thread of its own carries a request all the way; Celery's main
thread keeps remote control, heartbeats and events, and may wait for Redis as long as it
likes.

- ``celery_hooks``: application, requests, events and subscriptions in place of Celery's
- ``pool``: Celery's pool interface over loop and bridge
- ``bridge``: Celery's tracer, which is synchronous, on the loop
- ``service``: puts everything below together, and takes it apart
- ``intake``: pulls exactly what the engines have room for
- ``open_queues``: which queues may have something to pull
- ``reading``: a pulled message, or why nobody can execute it
- ``lease``: this worker's sign of life, and what dead workers left behind
- ``requests``: from a message to an answer, on one engine after another
- ``engines``: the engines of this host, and how much of each is this worker's
- ``delivery``: the messages that are held, and what becomes of them
"""
