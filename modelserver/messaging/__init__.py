"""What producers and workers share: from a call to a message, and back to an answer.

- ``names``: names of tasks and queues
- ``wire``: settings that both sides must agree on
- ``requests``: what a request may contain; ``subjects``: and what it may be about
- ``answers``: what an engine's response means, and when it is none
- ``stream_parts``: an answer that comes in parts; ``response_parts``: one of
  /v1/responses
- ``catalogue``: the models that can be asked
- ``envelope``: how a message in a queue is kept small
- ``bundles``: rows of a run: what carries them, and how they are answered
- ``encoding``: vectors in messages
- ``followers``: what follows a task: links, its chain, errbacks
- ``transport``: messages in Redis, as Celery's transport
- ``backend``: results in Redis, as Celery's result backend
- ``listening``: results as they arrive, for whoever waits
- ``results``: what a call returns, for threads and for asyncio
- ``sending``: sending from a thread of its own
- ``forks``: a client in a forked child
- ``inheritance``: what a chain's next step takes over
- ``remote_control``: revoking that is kept in Redis
- ``running_worker``: what the above and tasks ask of the worker that they run in
"""
