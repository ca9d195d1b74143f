"""The fleet file: what it may say, and who may say it.

``file`` reads and checks it as a whole, ``sections`` its parts one by one, with
``names``, ``adapters``, ``arguments``, ``container_arguments``, ``nodes``, ``places``,
``bounds``, ``engine_versions`` and ``schedule`` for what models are called, their LoRA
adapters, the arguments of their engines and containers, engines of several hosts,
hosts, GPUs and URLs, the largest numbers, the versions of engines, and the models'
days; ``variables`` lays the environment over
it; ``key`` signs a fleet.
"""
