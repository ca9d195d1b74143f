"""A stand-in for an inference engine, with faults, for the tests.

- ``server``: the program, ``python -m tests.engine.server``
- ``process``: starts it from a test, and talks to it
- ``app``: its HTTP routes, its counts, and where faults strike
- ``openai_api``: requests and answers in OpenAI's shapes
- ``streaming``: answers in parts
- ``responses``: ways to answer a request, and not to answer it
- ``faults``: the faults that it can be given
- ``pace``: how long generations take
- ``batching``: steps of a shared batch, as values
- ``nodes``: how its nodes meet, if it takes several hosts
"""
