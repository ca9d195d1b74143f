"""Which wishes a launcher obeys, and which engines it ends by them. Pure."""

from collections.abc import Collection, Mapping

from launcher.engine.nodes import find_node_contradiction
from launcher.store_link import StoreView
from modelserver.values import EngineSpec, ModelSpec, Wish, split_engine_id

#: Seconds in which engines without a wish are kept after the store lost its data, or
#: after the launcher adopted engines: control repeats its wishes meanwhile.
WISHES_GRACE_SECONDS = 15.0
#: Seconds in which engines that serve are kept though they are wanted elsewhere, once a
#: launcher is back: control leaves them where they are if nobody else serves yet.
RETURN_SECONDS = 15.0


def find_contradiction(
    wish: Wish,
    pins: Mapping[str, EngineSpec],
    models: Mapping[str, ModelSpec],
    addresses: Mapping[str, str],
) -> str:
    """What of a wish is not as the signed fleet says, "" where nothing is.

    Wishes are not signed: they choose among what the fleet allows. Arguments, and a
    port that is a text, would become part of a command; a URL gets prompts and a key.
    ``models`` and the hosts' ``addresses`` are those of the fleet.
    """
    spec = wish.spec
    pin = pins.get(spec.id)
    model, number = split_engine_id(spec.id)
    if model != spec.model or number < 0:
        return f"{spec.id} is no engine of model {spec.model}"
    if type(spec.port) is not int or spec.port not in (0, pin.port if pin else 0):
        return f"the fleet gives it no port {spec.port!r}"
    if spec.url and spec.url != (pin.url if pin else ""):
        return f"the fleet does not say that it listens at {spec.url!r}"
    # Of an environment only the names count: the values are this host's own.
    own = (pin.extra_args, pin.environment.keys()) if pin else ((), frozenset())
    if (spec.extra_args, spec.environment.keys()) != own:
        return "the fleet gives it no such extra_args or environment"
    return find_node_contradiction(spec, models.get(spec.model), addresses)


class WishReader:
    """Tells a wish that is gone from one that the store has lost.

    Only a store whose data has another name than before has lost wishes. What is
    missing otherwise is wanted no longer.
    """

    def __init__(self) -> None:
        self._data = ""
        self._grace_until = float("-inf")
        self._returning_until = float("-inf")

    def expect_wishes(self, now: float) -> None:
        """Keep engines without a wish for a while: it may still come."""
        self._grace_until = now + WISHES_GRACE_SECONDS

    def expect_return(self, now: float) -> None:
        """Keep serving engines for a while that were given up: nobody heard of them."""
        self._returning_until = now + RETURN_SECONDS

    def is_kept(self, view: StoreView, engine: str, now: float) -> bool:
        """Whether an engine, if it serves, is kept though it is wanted elsewhere."""
        return now < self._returning_until and engine not in view.serving_elsewhere

    def note(self, view: StoreView, now: float) -> bool:
        """Take note of what was read; whether the store has lost its data before."""
        lost = bool(self._data) and view.data != self._data
        self._data = view.data
        if lost:
            self.expect_wishes(now)
        return lost

    def says_all(self, view: StoreView, now: float) -> bool:
        """Whether an engine without a wish is wanted no longer."""
        return view.steered and now >= self._grace_until

    def find_unwanted(
        self, view: StoreView, engines: Mapping[str, bool], now: float
    ) -> dict[str, str]:
        """The engines that are to end, each with why.

        ``engines`` are those that there are, with whether each serves.
        """
        unwanted = {}
        for name, serves in engines.items():
            if name in view.elsewhere:
                if not (serves and self.is_kept(view, name, now)):
                    unwanted[name] = "moved to another host"
            elif name in view.unread:
                continue  # It goes on until its wish can be read.
            elif name not in view.wishes and self.says_all(view, now):
                unwanted[name] = "wanted no longer"
        return unwanted

    def find_forgotten(
        self, view: StoreView, engines: Collection[str], now: float
    ) -> set[str]:
        """The engines that only a report in the store tells of."""
        if not self.says_all(view, now):
            return set()
        wanted = view.wishes.keys() | view.unread
        return set(view.reported) - wanted - set(engines)
