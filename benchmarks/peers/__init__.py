"""Other ways to do the same work, each as small as its documentation shows it.

The environment that the benchmark makes for them runs them; nothing here imports
modelserver.

- ``arq_peer``, ``celery_peer``, ``dramatiq_peer`` and ``taskiq_peer``: one library each
- ``bare_peer``: a client without a queue
- ``calls``: the request that all of them send
- ``producer``: the side that submits and reads back, the same for all of them
"""
