"""``python -m tests.chaos [NAME]``: all fault runs, or the one that is named."""

import sys

from benchmarks.report import main
from launcher.host.gpus import GpuInventory
from tests.chaos.batch_runs import hosted_killed, runs_killed
from tests.chaos.control.controllers import (
    controller_killed,
    redis_restarted_in_relaunch,
    two_beats,
)
from tests.chaos.control.engines import (
    engine_errors,
    engine_hung,
    engine_slow,
    engine_stutters,
    engines_well,
    lone_engine_slow,
    long_prompts,
    overload,
)
from tests.chaos.control.sglang import (
    gpu_slowed,
    machine_busy,
    sglang_slowed,
    sglang_well,
)
from tests.chaos.disk_full import disk_full
from tests.chaos.empty_server import redis_empty
from tests.chaos.engine_kills import engine_killed
from tests.chaos.engines import engine_faults
from tests.chaos.failover import redis_failed_over
from tests.chaos.forked_clients import forked_clients
from tests.chaos.frozen_chains import frozen_chains
from tests.chaos.gateway import gateway
from tests.chaos.gateway_crowd import gateway_crowd
from tests.chaos.gateway_fuzz import gateway_fuzz
from tests.chaos.gpus_moved import gpus_moved
from tests.chaos.host_faults import clock_stepped, launcher_away, port_stranger
from tests.chaos.interactive import interactive
from tests.chaos.launcher import launcher_killed
from tests.chaos.model import delivery_model
from tests.chaos.placement import placement
from tests.chaos.poison import poison_messages
from tests.chaos.poisonous_requests import poison
from tests.chaos.sentinel import sentinel
from tests.chaos.server import clock_shifted, redis_cut_off, redis_restarted
from tests.chaos.slurm import slurm
from tests.chaos.slurm_nodes import slurm_nodes
from tests.chaos.two_versions import two_versions
from tests.chaos.workers import (
    worker_killed,
    worker_killed_often,
    worker_paused,
    worker_terminated,
)

CASES = {
    "placement": placement,
    "gpus-moved": gpus_moved,
    "worker-killed": worker_killed,
    "worker-killed-often": worker_killed_often,
    "worker-paused": worker_paused,
    "worker-terminated": worker_terminated,
    "runs-killed": runs_killed,
    "hosted-killed": hosted_killed,
    "gateway": gateway,
    "gateway-crowd": gateway_crowd,
    "gateway-fuzz": gateway_fuzz,
    "interactive": interactive,
    "frozen-chains": frozen_chains,
    "forked-clients": forked_clients,
    "engine-faults": engine_faults,
    "engine-killed": engine_killed,
    "launcher-killed": launcher_killed,
    "redis-restarted": redis_restarted,
    "redis-cut-off": redis_cut_off,
    "redis-failed-over": redis_failed_over,
    "sentinel": sentinel,
    "clock-shifted": clock_shifted,
    "clock-step": clock_stepped,
    "launcher-away": launcher_away,
    "port-stranger": port_stranger,
    "disk-full": disk_full,
    "redis-empty": redis_empty,
    "slurm": slurm,
    "slurm-nodes": slurm_nodes,
    "two-versions": two_versions,
    "poison-messages": poison_messages,
    "poison": poison,
    "model": delivery_model,
    "engine-slow": engine_slow,
    "lone-engine-slow": lone_engine_slow,
    "engine-hung": engine_hung,
    "engine-errors": engine_errors,
    "engine-stutters": engine_stutters,
    "overload": overload,
    "long-prompts": long_prompts,
    "sglang-slowed": sglang_slowed,
    "gpu-slowed": gpu_slowed,
    "machine-busy": machine_busy,
    "engines-well": engines_well,
    "sglang-well": sglang_well,
    "controller-killed": controller_killed,
    "two-beats": two_beats,
    "redis-restarted-in-relaunch": redis_restarted_in_relaunch,
}

if __name__ == "__main__":
    if not sys.argv[1:] and not GpuInventory().read():
        del CASES["gpu-slowed"]
    sys.exit(main("chaos", CASES, sys.argv[1:]))
