"""Why an engine fits nowhere, in words that say what to do about it."""

from collections.abc import Sequence

from modelserver.policy.placement.needs import Need
from modelserver.policy.placement.rooms import HostRoom

#: A reason names so many hosts, those that come nearest, and so many GPUs of each.
HOSTS_NAMED = 3
GPUS_NAMED = 4


def nowhere(need: Need, hosts: Sequence[HostRoom], engine: str = "") -> str:
    """Why none of these hosts can take an engine with this need."""
    if not hosts:
        return "no launcher reports; start one on each host with engines"
    near = sorted(hosts, key=lambda host: (-_fitting(host, need), host.name))
    parts = [on_host(need, host, engine) for host in near[:HOSTS_NAMED]]
    if len(hosts) > HOSTS_NAMED:
        more = len(hosts) - HOSTS_NAMED
        parts.append(f"and {more} more host{'s' * (more > 1)}")
    return "; ".join([f"needs {need}", *parts])


def on_host(need: Need, host: HostRoom, engine: str = "") -> str:
    """What is wrong with the GPUs of one host."""
    number = len(host.rooms)
    if not number:
        return f"host {host.name} has no GPUs"
    refusals = [room.refusal(need, engine) for room in host.rooms]
    bad = [refusal for refusal in refusals if refusal]
    parts = bad[:GPUS_NAMED]
    if len(bad) > GPUS_NAMED:
        parts.append(f"and {len(bad) - GPUS_NAMED} more")
    good = number - len(bad)
    if not bad or good:
        has = f"{good} of {number} GPU{'s' * (number > 1)} fit{'s' * (good == 1)}"
        parts.insert(0, has)
    return f"host {host.name}: {', '.join(parts)}"


def _fitting(host: HostRoom, need: Need) -> int:
    return sum(room.fits(need) for room in host.rooms)
