"""A model of delivery: any order of steps, on the real scripts and a real server.

- ``state``: all that the server keeps, and where each request is
- ``ground``: the server, its producers and workers, and a failover
- ``promises``: what must hold after every step
- ``turns``: how submitters share a queue
- ``stage``: what the steps share, the checks after each, and the end
- ``row_steps``: the steps of rows that travel in bundles
- ``machine``: all steps
- ``running``: runs of it, counted and bounded
"""
