"""A client in a forked child: connections, threads and locks of its own.

Celery and kombu see to it in children of multiprocessing only, and not for results. A
lock that another thread of the parent held while it forked is held for ever in the
child, where that thread is not.
"""

import os
import sys
import threading
import weakref
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from celery import Celery
from celery.utils.dispatch import Signal
from kombu import pools

#: Packages whose classes and modules have locks that a client's threads take.
PACKAGES = frozenset({"celery", "kombu", "redis", "modelserver"})
#: What has a lock of its own there. A cached property has one for all objects, which it
#: holds while a value is read: kombu's always, Python's before 3.12.
LOCKED = (cached_property, Signal)


def reset_in_forks(app: Celery) -> None:
    """Begin anew in each forked child: by multiprocessing, os.fork, gunicorn, ..."""
    living = weakref.ref(app)

    def reset() -> None:
        app = living()
        if app is not None:
            _renew_locks(app)
            _renew_connections(app)

    os.register_at_fork(after_in_child=reset)


def _renew_locks(app: Celery) -> None:
    """New locks for what all applications of a process share, and for this one."""
    for holder in _locked():
        if hasattr(holder, "lock"):
            holder.lock = threading.RLock()
    app._finalize_mutex = threading.RLock()
    app.clock.mutex = threading.Lock()


def _locked() -> Iterator[Any]:
    """What has a lock in the modules of PACKAGES and in their classes."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in PACKAGES:
            continue
        for value in list(vars(module).values()):
            # By type(): to ask a proxy for its class would load what it stands for.
            kind = type(value)
            if issubclass(kind, LOCKED):
                yield value
            elif issubclass(kind, type) and value.__module__ == name:
                for attribute in list(vars(value).values()):
                    if issubclass(type(attribute), LOCKED):
                        yield attribute


def _renew_connections(app: Celery) -> None:
    pools.producers.clear()
    pools.connections.clear()
    app._after_fork()
    app.modelserver_models.after_fork()
    app.modelserver_sender.after_fork()
    if app._backend is not None:
        app._backend.after_fork()
