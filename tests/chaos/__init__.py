"""Fault runs against real processes: ``python -m tests.chaos [NAME]``.

What is struck:

- ``frozen_chains``: workers that freeze with chains and links on them
- ``workers``: workers are killed, paused and terminated
- ``engines``: engines fail, beside one that is well
- ``engine_kills``: a real SGLang engine is killed, or its scheduler alone
- ``launcher``: a launcher is killed under load
- ``host_faults``: clocks step, launchers are silent, strangers take ports
- ``server``: the server restarts or is cut off, and clocks disagree
- ``failover``: the server fails over
- ``sentinel``: the server fails over by sentinels
- ``empty_server``: the server comes back without its data
- ``disk_full``: a host's disk is full
- ``slurm``: hosts that are jobs of Slurm end in each way that a job may
- ``slurm_nodes``: so do jobs of two nodes, one of which is lost
- ``two_versions``: a rolling upgrade, and back
- ``forked_clients``: programs that have sent before they fork
- ``batch_runs``: all that a run of a file needs is killed in turn
- ``gateway``: OpenAI's API under load, and all that is behind it
- ``gateway_crowd``: OpenAI's API beside connections that only hold a place
- ``gateway_fuzz``: OpenAI's API by a fuzzer's requests
- ``interactive``: OpenAI's API beside a batch that would take every place
- ``model``: every step that delivery knows, in any order
- ``poison``: messages that nobody can digest, a killer of workers, a full server
- ``poisonous_requests``: requests that every engine fails at, among others
- ``placement``: strangers take GPUs and leave them
- ``gpus_moved``: a step of load moves a GPU to another model
- ``control``: engines under control become slow, hang or fail

What they share:

- ``load``: requests that are all accounted for
- ``hosts``: launchers and workers under steady load, and what became of each engine
- ``served``: a gateway in front of a rig
- ``slurm_cluster``: a Slurm of one machine, with nodes of its own
- ``proxy``: a TCP proxy that can stop forwarding
- ``gpu_ground``: launchers, workers and control on simulated GPUs
"""
