"""One engine, from its start to its end.

- ``keeper``: holds one engine; its ``tick`` applies the table of states
- ``start``: one start: process, log, limit
- ``stop``: drain and end
- ``report``: what the fleet is told about the engine
- ``background``: tasks beside the loop
- ``checkup``: what is asked of an engine that serves
- ``liveness``: evidence of tokens
- ``canaries``: small requests that are sent to see how long they take
- ``engine_metrics``: the engine's own figures
- ``container``, ``in_container``: engines that run in a container
"""
