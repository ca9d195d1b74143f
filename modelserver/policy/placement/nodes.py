"""The places of all nodes of an engine, on as many hosts as it takes. Pure.

An engine gets all of them or none; one on a single host has one node.
"""

from collections import defaultdict
from collections.abc import Iterable
from operator import itemgetter

from modelserver.policy.placement.needs import Need
from modelserver.policy.placement.rooms import HostRoom
from modelserver.values import NodePlace

Places = tuple[NodePlace, ...]
#: Whether another host was wanted, what the place breaks up, and its host.
_Order = tuple[bool, tuple[int, ...], str]


def find_best_places(
    need: Need, hosts: Iterable[HostRoom], leader: str = "", engine: str = ""
) -> Places | None:
    """The best place for each node, that of node 0 first; None where one has none.

    All have GPUs of one kind. ``leader`` is the host of node 0, "" for any. What
    ``engine`` holds is free for it.
    """
    by_kind: defaultdict[str, list[tuple[_Order, NodePlace]]] = defaultdict(list)
    for host in hosts:
        if leader and need.nodes == 1 and host.name != leader:
            continue  # There is none to follow; asking all, for each pin, takes long.
        for kind, offer in host.find_offers(need, engine).items():
            order = (host.name != leader, offer.cost, host.name)
            by_kind[kind].append((order, NodePlace(host.name, offer.uuids)))
    found = []
    for offers in by_kind.values():
        best = sorted(offers, key=itemgetter(0))[: need.nodes]
        if len(best) == need.nodes and leader in ("", best[0][1].host):
            found.append(best)
    if not found:
        return None
    group = min(found, key=lambda each: [order for order, _ in each])
    return tuple(place for _, place in group)
