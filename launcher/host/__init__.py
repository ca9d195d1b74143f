"""The host that a launcher runs on: one owner of each effect on it.

- ``lock``: one launcher for each fleet on a host
- ``process``: starts and ends processes, and knows which are ours
- ``family``: the processes below an engine's first one
- ``gpus``: what NVML says of the GPUs
- ``process_owners``: who holds memory on a GPU: user and program
- ``host_watch``: looks at the GPUs and their users every few seconds
- ``allocation``: which engine has which port and GPUs
- ``ports``: free ports
- ``containers``: docker and podman
- ``images``: the container images that this host has
- ``records``: files by which the next launcher adopts engines
- ``secrets``: keys of engines
- ``credentials``: where a key is kept on disk
- ``incidents``: what is kept of an engine before it is ended
- ``process_dump``: the stacks of a process
- ``tools``: small helpers that the rooms above share
"""
