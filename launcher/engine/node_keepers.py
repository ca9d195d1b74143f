"""The nodes that this host has of engines whose leaders are on other hosts."""

from collections.abc import Container, Mapping
from contextlib import AbstractContextManager

from launcher.engine.node_keeper import NodeKeeper
from launcher.host.records import Record
from launcher.host.resources import HostResources
from launcher.store_link import StoreView
from modelserver.values import ModelSpec, Wish


class NodeKeepers:
    """One keeper for each; true while there are any."""

    def __init__(self, resources: HostResources) -> None:
        self._resources = resources
        self._keepers: dict[str, NodeKeeper] = {}

    def __contains__(self, engine: object) -> bool:
        return engine in self._keepers

    def __len__(self) -> int:
        return len(self._keepers)

    def adopt(self, record: Record, model: ModelSpec) -> None:
        """Go on with a node that an earlier launcher started."""
        keeper = NodeKeeper(record.spec, record.node, model, self._resources)
        keeper.adopt(record)
        self._keepers[record.spec.id] = keeper

    def apply_wishes(
        self,
        wishes: Mapping[str, Wish],
        models: Mapping[str, ModelSpec],
        busy: Container[str],
    ) -> None:
        """Go by the wishes for engines that have a node here.

        Those of ``busy`` still run here as engines that this host leads.
        """
        host = self._resources.host
        for name, wish in wishes.items():
            model = models.get(wish.spec.model)
            with self._guard(name, "obey its wish"):
                if name not in self._keepers and model and name not in busy:
                    node = _node_on(wish, host)
                    keeper = NodeKeeper(wish.spec, node, model, self._resources)
                    self._keepers[name] = keeper
        for name, keeper in self._keepers.items():
            keeper.model = models.get(keeper.spec.model, keeper.model)
            with self._guard(name, "obey its wish"):
                if name in wishes:
                    keeper.apply_wish(wishes[name].spec, _node_on(wishes[name], host))
                else:
                    keeper.apply_wish(None)

    def tick(self, now: float, view: StoreView) -> bool:
        """Do what is due now; whether there is news for the store."""
        for name, keeper in list(self._keepers.items()):
            with self._guard(name, "keep it"):
                keeper.tick(now, view)
                if keeper.gone:
                    del self._keepers[name]
                    self._resources.troubles.forget(_about(name))
                    self._resources.wake()
        link = self._resources.link
        before = link.nodes
        link.nodes = tuple(keeper.report() for keeper in self._keepers.values())
        return link.nodes != before

    def _guard(self, name: str, what: str) -> AbstractContextManager[None]:
        return self._resources.troubles.guard(_about(name), what)

    def stop(self, at_once: bool) -> None:
        """End all of them for good."""
        for keeper in self._keepers.values():
            keeper.stop(at_once)


def _about(engine: str) -> str:
    return f"node of engine {engine}"


def _node_on(wish: Wish, host: str) -> int:
    return [place.host for place in wish.spec.places].index(host)
