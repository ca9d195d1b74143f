"""The nodes of an engine that takes several hosts, as its leader's launcher sees them.

Node 0 leads: its launcher starts the engine, proves it, and ends it. The launchers of
the others do as its reports say. All of them run one incarnation, or none does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from launcher.engine_types.base import Meeting
from launcher.host.allocation import FIRST_PORT, LAST_PORT
from launcher.host.interfaces import find_interface
from launcher.store_link import StoreView
from modelserver.policy.lifecycle import CannotHeal, Died, DrainAsked
from modelserver.values import (
    Cause,
    EngineReport,
    EngineSpec,
    EngineState,
    ModelSpec,
    NodeReport,
)

#: Seconds after which a silent host of a node is lost, if no token came since.
LOST_SECONDS = 20.0
#: A reading of the store that is older says nothing of other hosts, in seconds.
FRESH_SECONDS = 5.0

End = Died | CannotHeal | DrainAsked


def find_node_contradiction(
    spec: EngineSpec, model: ModelSpec | None, addresses: Mapping[str, str]
) -> str:
    """What of the nodes in a wish is not as the signed fleet says, "" if nothing is."""
    nodes = model.nodes if model else 1
    hosts = [place.host for place in spec.followers]
    # Without a place for all nodes it has none.
    if len(hosts) not in (0, nodes - 1):
        return f"it has places on {len(hosts) + 1} hosts, and nodes = {nodes}"
    for place in spec.followers:
        if not isinstance(place.host, str) or not addresses.get(place.host):
            return f"the fleet gives host {place.host!r} no address"
        if not all(isinstance(uuid, str) for uuid in place.uuids):
            return f"it has no GPUs {place.uuids!r}"
    if len({spec.host, *hosts}) <= len(hosts):
        return "two of its nodes are on one host"
    return ""


def find_meeting_port(leader: EngineReport) -> int:
    """The port that a leader reports, 0 for what no launcher would say.

    Reports are not signed, and this becomes part of a command.
    """
    port = leader.meeting_port
    return port if type(port) is int and FIRST_PORT <= port <= LAST_PORT else 0


def arrange_meeting(
    spec: EngineSpec, node: int, port: int, addresses: Mapping[str, str]
) -> Meeting | str | None:
    """How this host's node finds the others; None for an engine on one host.

    Addresses are those of the signed fleet. Returns why it cannot, where it cannot.
    """
    if not spec.followers:
        return None
    host = spec.places[node].host
    leader, own = addresses.get(spec.host, ""), addresses.get(host, "")
    if not leader or not own:
        return f"host {host if leader else spec.host} has no address in [[hosts]]"
    interface = find_interface(own)
    if not interface:
        return f"no interface of host {host} has {own}, its address in [[hosts]]"
    if not port:
        return "no port is free at which its nodes could meet"
    return Meeting(node, len(spec.places), leader, port, own, interface)


class NodeWatch:
    """What the keeper of a leader knows of the other nodes; there may be none."""

    def __init__(self) -> None:
        #: The nodes that have been seen to run in the present incarnation.
        self._joined: set[int] = set()
        #: Since when the host of a node has been silent.
        self._silent_since: dict[int, float] = {}

    def begin(self) -> None:
        """Forget the incarnation before."""
        self._joined.clear()
        self._silent_since.clear()

    def find_obstacle(self, spec: EngineSpec, model: ModelSpec, view: StoreView) -> str:
        """Why a start has to wait for other nodes, "" where all of them can start."""
        if len(spec.places) != model.nodes:
            return f"control has found no {model.nodes} hosts with room for it yet"
        for node, host, report in _followers(spec, view):
            if host not in view.hosts:
                return f"waits for host {host}, whose launcher does not report"
            uuids = spec.places[node].uuids
            if report is None or report.uuids != uuids:
                return f"waits for node {node} on host {host}"
            if report.state is not EngineState.PENDING:
                return f"waits until node {node} on host {host} has ended"
            if report.reason:
                return f"node {node} on host {host}: {report.reason}"
        return ""

    def with_followers(
        self, told: EngineReport, spec: EngineSpec, view: StoreView
    ) -> EngineReport:
        """The report with the other nodes, and which of them a start waits for."""
        nodes, reason = list(_followers(spec, view)), told.reason
        for node, host, _ in nodes if told.state is EngineState.STARTING else ():
            if node not in self._joined:
                reason = f"waits for node {node} on host {host} to start"
        known = tuple(report for _, _, report in nodes if report)
        return replace(told, followers=known, reason=reason)

    def find_end(
        self,
        spec: EngineSpec,
        incarnation: int,
        view: StoreView,
        alive_at: float,
        now: float,
    ) -> End | None:
        """Why the engine has to end with one of its nodes, None while all live.

        ``alive_at`` is when its last token came.
        """
        if now - view.read_at > FRESH_SECONDS:
            self._silent_since.clear()
            return None
        for node, host, report in _followers(spec, view):
            if host not in view.hosts:
                since = self._silent_since.setdefault(node, now)
                if now - since > LOST_SECONDS and alive_at < since:
                    return Died(
                        f"host {host} of its node {node} is lost", may_heal=True
                    )
                continue
            self._silent_since.pop(node, None)
            about = f"node {node} on host {host}"
            if report is not None and report.incarnation == incarnation:
                self._joined.add(node)
                if end := _end_of(about, report):
                    return end
            elif node in self._joined:
                return Died(f"{about} is gone", may_heal=True)
        return None


def _followers(
    spec: EngineSpec, view: StoreView
) -> Iterator[tuple[int, str, NodeReport | None]]:
    for node, place in enumerate(spec.followers, 1):
        report = view.nodes.get((spec.id, node))
        own = report is not None and report.host == place.host
        yield node, place.host, report if own else None


def _end_of(about: str, report: NodeReport) -> End | None:
    match report.state:
        case EngineState.BACKOFF:
            return Died(f"{about} ended: {report.reason}")
        case EngineState.FATAL:
            return CannotHeal(f"{about} cannot start: {report.reason}")
        case EngineState.DRAINING:
            return DrainAsked(f"{about}: {report.reason}", Cause.RELEASED)
        case EngineState.PENDING:
            why = f"cannot start yet: {report.reason}" if report.reason else "is gone"
            return Died(f"{about} {why}", may_heal=True)
    return None
