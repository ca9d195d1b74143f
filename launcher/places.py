"""Which port and which GPUs each engine of this host has."""

import asyncio

from launcher import gpus, ports
from launcher.engines import Place
from modelserver.model import EngineSpec, ModelSpec


class Places:
    """Gives out places, one engine at a time, so that no two get the same."""

    def __init__(self) -> None:
        self._given: dict[str, Place] = {}
        self._lock = asyncio.Lock()

    async def choose(self, spec: EngineSpec, model: ModelSpec) -> Place | str:
        """Give an engine a place, or say why there is none now."""
        async with self._lock:
            self.release(spec.id)
            place = await asyncio.to_thread(self._choose, spec, model)
            if isinstance(place, Place):
                self._given[spec.id] = place
            return place

    def keep(self, engine: str, place: Place) -> None:
        """Note the place of an engine that runs already."""
        self._given[engine] = place

    def release(self, engine: str) -> None:
        """Take an engine's place back."""
        self._given.pop(engine, None)

    def _choose(self, spec: EngineSpec, model: ModelSpec) -> Place | str:
        port = self._port(spec)
        if isinstance(port, str):
            return port
        if not (spec.gpus or model.gpus):
            return Place(port)
        promised = {index for place in self._given.values() for index in place.gpus}
        chosen = gpus.choose(gpus.inventory(), model.gpus, promised, spec.gpus)
        if isinstance(chosen, str):
            return chosen
        share = min(gpu.free_share for gpu in chosen)
        return Place(port, tuple(gpu.index for gpu in chosen), share)

    def _port(self, spec: EngineSpec) -> int | str:
        if not spec.port:
            taken = {place.port for place in self._given.values()}
            port = ports.choose(taken)
            return port or (
                f"no port from {ports.FIRST_PORT} to {ports.LAST_PORT} is free on this "
                "host; end what holds them"
            )
        if ports.is_free(spec.port):
            return spec.port
        return (
            f"port {spec.port} is held by {ports.holder(spec.port)}; end that process, "
            "or give this engine another port in the fleet file"
        )
