"""What hosts have to give, looked at anew where they have changed. Pure."""

from collections.abc import Collection, Mapping

from modelserver.policy.placement.needs import Need
from modelserver.policy.placement.rooms import HostRoom, RoomOffer, why_nowhere


class Offers:
    """Remembers for each need what each host offers, and why none does.

    ``drained`` are other hosts, which are not to offer anything.
    """

    def __init__(self, hosts: Mapping[str, HostRoom], drained: Collection[str]) -> None:
        self._hosts = hosts
        self._drained = drained
        self._known: dict[Need, dict[str, RoomOffer]] = {}
        self._changed: dict[Need, set[str]] = {}
        self._nowhere: dict[Need, str] = {}

    def note_change(self, host: str) -> None:
        """Note that a host has something less to give."""
        for changed in self._changed.values():
            changed.add(host)

    def find(self, need: Need) -> dict[str, RoomOffer]:
        """What each host with room offers."""
        offers = self._known.setdefault(need, {})
        changed = self._changed.setdefault(need, set(self._hosts))
        for name in changed:
            fit = self._hosts[name].find_offer(need)
            if fit is None:
                offers.pop(name, None)
            else:
                offers[name] = fit
        changed.clear()
        return offers

    def why_nowhere(self, need: Need) -> str:
        """Why no host has room, as it was when that was first asked."""
        if need not in self._nowhere:
            hosts = list(self._hosts.values())
            self._nowhere[need] = why_nowhere(need, hosts, self._drained)
        return self._nowhere[need]
