"""The host that a launcher runs on: one owner of each effect on it.

- ``resources``: what all engines share: the owners below, folders, keys
- ``lock``: one launcher for each fleet on a host
- ``process``: starts and ends processes, and knows which are an engine's
- ``unowned``: engines that run without a launcher
- ``exposed``: engines that other hosts can reach
- ``listeners``: whose processes listen on a port
- ``interfaces``: which interface has an address
- ``containers``: docker and podman
- ``gpus``: what NVML says of the GPUs
- ``gpu_list``: the same for commands, before a launcher runs
- ``gpu_health``: what they say of their own health
- ``gpu_faults``: what happened to them since the host booted
- ``own_gpus``: which of them are this launcher's
- ``device_kinds``: what is said of devices that are not supported
- ``gpu_turns``: one launcher at a time loads an engine on a GPU, or keeps it
- ``process_owners``: whose processes hold memory of a GPU
- ``host_watch``: reads the GPUs and the use of the processors every second
- ``disks``: how much room the disks have
- ``allocation``: which engine has which port and GPUs
- ``logs``: bounds the logs while programs write to them, and reads their ends
- ``load_turns``: starts that load the same files one after another
- ``needed_files``: whether the files that engines need are there
- ``records``: files by which the next launcher adopts engines
- ``secrets``: values of environments, and the API keys of engines
- ``troubles``: what a launcher fails at, so that it fails at nothing else
- ``incidents``: what is kept of a failing engine before it is ended
- ``process_dump``: what an engine's processes are doing
"""
