"""Benchmarks: ``python -m benchmarks [NAME]``.

What is measured:

- ``submit``: how fast one process submits requests and reads their answers
- ``held``: the part of it that reads back what a program held for long
- ``throughput``: tasks per second, and what the worker adds to the latency
- ``bulk``: rows of a run in bundles, for the worker, the server and the client
- ``rollouts``: rows of two dependent calls, for their own program
- ``run_million``: a file of a million rows: memory, pace, and how soon it goes on
- ``run_batch``: the same file by ``vllm run-batch``
- ``two_workers``: two workers of one host beside one, and whether limits hold
- ``engine_bound``: what queue, worker and store cost on a real engine
- ``embeddings``: single texts on a real engine, against a client that knows them all
- ``queue_depth``: whether a long queue makes the worker slower
- ``soak``: whether a worker's memory grows over a million tasks
- ``events``: what task events cost a worker
- ``recording``: what it costs to record a request
- ``control``: what one look of control at a whole fleet costs
- ``placement``: what it costs control to place a whole fleet
- ``page``: what the fleet page costs
- ``flower``: the memory of Flower
- ``install``: what `pip install` brings, and how soon it is imported
- ``commands``: how long commands take that only read
- ``gateway``: OpenAI's API, beside LiteLLM's proxy and SGLang's router
- ``profile``: where the worker's CPU time goes

What they share:

- ``rig``: a server, engines and workers of a measurement's own
- ``machine``: its processes, what they cost, and how busy the machine is otherwise
- ``steady``: measures a worker while there is enough to do
- ``http_load``: load on an OpenAI server by one asyncio client
- ``stacks``: modelserver and other libraries, each installed, started and asked alike
- ``peers``: the same work done by other libraries
- ``own_producer``: the side of modelserver that submits and reads back
- ``pictures``: the picture of a run in the docs
- ``page_pictures``: the pictures of the fleet page in the docs
- ``report``: a table and its goals, for benchmarks, fault runs and scenarios
"""
