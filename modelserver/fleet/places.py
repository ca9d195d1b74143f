"""What hosts and GPUs of the fleet file cannot be. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit


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


def find_replica_problem(gpus: Sequence[int], replicas: int) -> Iterator[str]:
    """Whether a pin's GPUs cannot be shared out among its model's replicas."""
    if len(gpus) % replicas:
        yield (
            f"gpus has {len(gpus)}, which cannot be shared out evenly among "
            f"data_parallel {replicas} of its model"
        )


def find_engine_url_problem(url: str) -> Iterator[str]:
    """What is wrong with the URL of an engine that somebody else runs.

    >>> list(find_engine_url_problem("http://h:8000/v1/"))
    ['url ends with /v1, which requests add; leave it out']
    """
    yield from find_url_problem(url)
    if url.rstrip("/").endswith("/v1"):
        yield "url ends with /v1, which requests add; leave it out"


def find_url_problem(url: str) -> Iterator[str]:
    """What is wrong with a URL that engines or alerts are asked at; nothing for "".

    >>> list(find_url_problem("http://h:8000")), list(find_url_problem("http://"))
    ([], ['the URL names no host'])
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        _ = parts.port  # Read, it is checked.
    except ValueError as error:
        yield f"it is no URL ({error})"
        return
    if url and not host:
        yield "the URL names no host"
    if parts.username or parts.password:
        yield (
            "the URL must hold no name or password, which everybody could read in "
            "Redis and status; give it by the variable of a key or token"
        )
