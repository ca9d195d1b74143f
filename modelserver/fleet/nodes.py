"""The part of the fleet file about engines that take several hosts."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import AfterValidator

#: The types of engines that can take several hosts.
ENGINES = ("sglang", "sglang-cpu", "vllm", "command")
#: What a command needs to be told to find its place among the others.
NEEDED = ("{node}", "{meeting}")


def _check_address(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address) if address else None
    except ValueError:
        raise ValueError(f'"{address}" is no IP address, such as 10.0.0.7') from None
    if parsed is not None and (parsed.is_unspecified or parsed.is_multicast):
        raise ValueError(f"{address} is the address of no host; give its own")
    return address


#: The IP address of a host, "" for none.
Address = Annotated[str, AfterValidator(_check_address)]


class NodesModel(Protocol):
    """What of a model's section decides whether its engines can take several hosts."""

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def gpus(self) -> int: ...
    @property
    def nodes(self) -> int: ...
    @property
    def share_gpu(self) -> bool: ...
    @property
    def data_parallel(self) -> int: ...
    @property
    def hosts(self) -> tuple[str, ...]: ...
    @property
    def min_engines(self) -> int: ...
    @property
    def most_engines(self) -> int: ...
    @property
    def schedule(self) -> Sequence[object]: ...
    @property
    def command(self) -> tuple[str, ...]: ...
    @property
    def extra_args(self) -> tuple[str, ...]: ...


def node_disagreements(model: NodesModel) -> Iterator[str]:
    """Why engines of a model cannot take so many hosts."""
    if model.nodes == 1:
        return
    if model.engine not in ENGINES:
        yield f'an engine of type "{model.engine}" is on one host; leave nodes out'
    if model.gpus % model.nodes:
        yield (
            f"gpus {model.gpus} cannot be shared out evenly among nodes {model.nodes}"
        )
    if model.data_parallel > 1:
        yield "data_parallel is for engines on one host; leave it or nodes out"
    if model.share_gpu:
        yield "an engine of several hosts shares no GPU; leave share_gpu out"
    if model.schedule or not 0 < model.min_engines == model.most_engines:
        yield (
            "engines of several hosts do not come and go with the load; give "
            "min_engines 1 or more, and leave max_engines and schedule out"
        )
    words = " ".join((*model.command, *model.extra_args))
    if model.engine == "command" and any(name not in words for name in NEEDED):
        yield f"its command has no {' or no '.join(NEEDED)}, and nodes is above 1"


def host_disagreements(
    model: NodesModel, addresses: Mapping[str, str]
) -> Iterator[str]:
    """Why the fleet's hosts, each with its address, are none for such engines."""
    if model.nodes == 1:
        return
    about = f'model "{model.name}" has nodes = {model.nodes}'
    allowed = model.hosts or tuple(addresses)
    if len(allowed) < model.nodes:
        yield f"{about}, and its hosts are fewer; list them as [[hosts]]"
    for host in allowed:
        if not addresses.get(host):
            yield (
                f'{about}, and host "{host}" has no address at which its nodes could '
                "meet; give it one in [[hosts]]"
            )
