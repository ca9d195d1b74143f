"""The messages that a worker holds, and what becomes of them.

- ``courier``: what is to become of each
- ``carrier``: results, acknowledgements and samples in batches, result first
- ``held_message``: one of them, and what it becomes if it goes back
- ``trials``: requests under suspicion of killing workers, one at a time
- ``unwanted``: revoked and expired requests, answered in batches
- ``server_clock``: the time by the store's clock
- ``task_times``: times in a message's headers, as Celery means them
"""
