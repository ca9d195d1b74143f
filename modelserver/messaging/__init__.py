"""What producers and workers share: from a call to a message, and back to an answer.

- ``wire``: names and settings that both sides must agree on
- ``requests``: what a request may contain
- ``answers``: what an engine's response means, and when it is none
- ``catalogue``: the models that can be asked
- ``encoding``: vectors in messages
- ``transport``: messages in Redis, as Celery's transport
- ``backend``: results in Redis, as Celery's result backend
- ``running_worker``: what the above and tasks ask of the worker that they run in
"""
