"""One request against the engines, again and elsewhere where that helps.

- ``executor``: carries a request until there is an answer
- ``work``: one request under way, and what has been tried
- ``attempt``: one request on one engine, which leaves a sample
- ``streams``: answers that are told in parts while they are generated
- ``coalescer``: single texts to embed, sent together
- ``bundles``: many rows of a run in one message, each executed like a request
- ``open_bundle``: one of them, whose rows are under way
- ``hedges``: a second engine for a request that takes longer than most
- ``retries``: what happens between two attempts of a request
- ``carried_tries``: the attempts so far, in the message's header
- ``budget``: a bound on retries
- ``crashes``: finds the request that kills engines
- ``own_fault``: finds the request that no engine can answer
"""
