"""How many workers one host runs as one program, and what they may be called."""

import os
from collections.abc import Sequence
from math import ceil

from modelserver.errors import ConfigurationError
from modelserver.fleet.file import Fleet

#: With "auto" there is one process for so many requests that engines take at once:
#: answered in 100 ms, they keep one core busy.
PLACES_A_PROCESS = 128
#: With "auto" workers get one core of so many; engines and others need the rest.
CORES_A_PROCESS = 4
#: Options of Celery that name a worker.
NAMING = ("-n", "--hostname")


def find_processes(asked: str, fleet: Fleet, cores: int) -> int:
    """How many workers a host is to run. Raises ConfigurationError.

    >>> find_processes("3", Fleet(), cores=2), find_processes("auto", Fleet(), cores=16)
    (3, 1)
    """
    if asked != "auto":
        if not asked.isdigit() or asked == "0":
            raise ConfigurationError(
                f'processes is "{asked}"; say how many workers this host is to run, '
                'from 1, or "auto"'
            )
        return int(asked)
    places = sum(spec.max_engines * spec.max_running for spec in fleet.specs())
    of_host = ceil(places / max(1, len(fleet.hosts)))
    useful = ceil(of_host / PLACES_A_PROCESS)
    return max(1, min(useful, cores // CORES_A_PROCESS))


def refuse_names(args: Sequence[str]) -> None:
    """Raises ConfigurationError where all workers would get one name."""
    named = next((arg for arg in args if arg.startswith(NAMING)), None)
    if named is not None:
        raise ConfigurationError(
            f"{named} would give all workers one name; leave it out: they are called "
            "worker@HOST-0, worker@HOST-1, ..."
        )


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
