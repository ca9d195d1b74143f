"""One engine, from its start to its end.

- ``keeper``: holds one engine; its ``tick`` applies the table of states
- ``start``: one start: process, log, limit
- ``readiness``: whether it listens and gives a token
- ``nodes``: the other nodes of an engine that takes several hosts
- ``node_keeper``, ``node_keepers``: the nodes here that other hosts lead
- ``turns``: engines that load the same files one after another
- ``stop``: asks an engine to end, then ends it by force
- ``report``: what the log and the store are told of the engine
- ``background``: tasks beside the loop
- ``vector_check``: whether a text has the same vector before and after others
- ``checkup``: what is asked of an engine that serves
- ``liveness``: evidence of tokens
- ``canaries``: small requests that tell how fast it is
- ``engine_metrics``: the engine's own figures
- ``failed_place``: on which GPUs it has failed
- ``container``: the command for an engine in a container
"""
