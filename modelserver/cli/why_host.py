"""How a host stands, for ``modelserver why``."""

from collections.abc import Iterator

from modelserver.cli.output import seconds
from modelserver.inventory import Host, gib
from modelserver.operations.host_checks import check_report, find_no_worker
from modelserver.operations.status import Status
from modelserver.operations.words import clock
from modelserver.policy.orders import DRAIN_HOST
from modelserver.store.fleet.alerts import AlertRecord
from modelserver.values import NodeReport


def describe_host(
    found: Status, name: str, alerts: tuple[AlertRecord, ...]
) -> Iterator[tuple[str, str]]:
    """Labels and values about a host; ``alerts`` are those that stand.

    Nothing of a host that never reported.
    """
    host = {each.name: each for each in found.hosts}.get(name)
    if host is None and name not in found.lost_hosts:
        return
    yield "launcher", f"pid {host.pid}" if host else "does not report"
    for order in found.orders:
        if (order.kind, order.target) == (DRAIN_HOST, name):
            reason = f": {order.reason}" * bool(order.reason)
            yield "drained", f"by {order.who} at {clock(order.at)}{reason}"
    workers = [worker.name for worker in found.workers if worker.host == name]
    yield "workers", ", ".join(workers) or "none"
    if host:
        yield from _report(found, host)
    engines = [each for each in found.engines if each.host == name]
    for engine in engines:
        state = f"{engine.state}" + ("" if engine.host_live else "?")
        since = f" for {seconds(found.at - engine.since)}" if engine.since else ""
        said = engine.hold or engine.reason or engine.progress
        load = f", {engine.inflight} in flight" if engine.inflight else ""
        yield engine.id, f"{state}{since}{load}" + (f": {said}" if said else "")
    nodes = host.nodes if host else ()
    for node in nodes:
        yield node.engine, f"node {node.node}, {describe_node(node)}"
    if not (engines or nodes):
        yield "engines", "none"
    for alert in alerts:
        if alert.about == name:
            yield "alert", f"since {clock(alert.since)}: {alert.text}"


def describe_node(node: NodeReport) -> str:
    """How a node of an engine on several hosts stands: "STARTING on host h2, gpu 0"."""
    gpus = f", gpu {', '.join(map(str, node.gpus))}" * bool(node.gpus)
    pid = f", pid {node.pid}" * bool(node.pid)
    said = f": {node.reason}" * bool(node.reason)
    return f"{node.state} on host {node.host}{gpus}{pid}{said}"


def _report(found: Status, host: Host) -> Iterator[tuple[str, str]]:
    for gpu in host.gpus:
        room = f"{gib(gpu.free)} of {gib(gpu.total)} free"
        yield gpu.label, gpu.fault or "; ".join(filter(None, (room, gpu.holders)))
    for disk in host.disks:
        yield "disk", f"{disk.path}: {gib(disk.free)} of {gib(disk.total)} left"
    for check in (*check_report(host), *find_no_worker(found, host)):
        if check.is_problem:
            yield "problem", f"{check.what}: {check.fact}; {check.remedy}"
