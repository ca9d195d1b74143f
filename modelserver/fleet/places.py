"""What hosts and GPUs of the fleet file cannot be. Pure."""

from collections.abc import Iterator, Mapping, Sequence


def find_gpu_problems(gpus: Sequence[int]) -> Iterator[str]:
    """What is wrong with the indexes of GPUs.

    >>> list(find_gpu_problems([0, 1])), list(find_gpu_problems([0, -1, 0]))
    ([], ['gpus has -1; GPUs are counted from 0', 'gpus has 0 twice'])
    """
    for gpu in sorted(set(gpus)):
        if gpu < 0:
            yield f"gpus has {gpu}; GPUs are counted from 0"
        if gpus.count(gpu) > 1:
            yield f"gpus has {gpu} twice"


def find_host_problems(name: str, gpus: Sequence[int], is_known: bool) -> Iterator[str]:
    """What is wrong with a host; ``is_known``: one of this name stands before it."""
    if is_known:
        yield f'host "{name}" stands here before; leave one of them out'
    yield from find_gpu_problems(gpus)


def find_pin_problems(
    host: str, gpus: Sequence[int], listed: Mapping[str, Sequence[int] | None]
) -> Iterator[str]:
    """What is wrong with the place of an engine; ``listed`` are the hosts with the GPUs
    that are the fleet's, None for all of a host's."""
    yield from find_gpu_problems(gpus)
    own = listed.get(host)
    if own is None or not (others := [gpu for gpu in gpus if gpu not in own]):
        return
    told, may = ", ".join(map(str, others)), ", ".join(map(str, own)) or "none"
    yield f'GPU {told} of host "{host}" is not the fleet\'s; [[hosts]] gives it {may}'
