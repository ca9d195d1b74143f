"""Fault runs of control: a launcher, workers and beat, engines under steady load.

- ``engines``: one of three engines is slow, hangs or fails; or all are well
- ``controllers``: control itself is struck while it treats an engine
- ``sglang``: the same on two real SGLang engines
- ``run``: one run, with its load, its fault and what became of both
- ``fleet``: the server, launcher, engines, workers and beat of a run
- ``traffic``: requests at a rate that can change
- ``stuttering``: a process that is stopped and goes on
- ``watch``: what control does to engines, seen from outside
"""
