"""Python's garbage collection in programs that answer many requests."""

import ctypes
import gc
from contextlib import suppress

#: For each generation of the collection, the oldest last: so many objects more, or so
#: many collections of the one before, set it off.
THRESHOLDS = (20_000, 20, 20)


def tame_collection() -> None:
    """Leave what is loaded once out of every collection, and collect less often.

    A request makes a few hundred objects that reference counting frees; with Python's
    own thresholds a tenth of a worker's time, and a fifth of a gateway's, went into
    looking through all others.
    """
    gc.collect()
    # What was freed while everything was loaded goes back to the system; glibc's own.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
