"""Celery's Redis result backend, storing through the worker's batches inside a worker.

In a client it is Celery's own. Inside a worker's pool a result goes into the batch of
the moment together with the check that the request is still this worker's, and the task
goes on when the batch has been written: the result stands before the acknowledgement.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from celery.backends.redis import ResultConsumer as RedisResultConsumer
from kombu.utils.encoding import bytes_to_str

from modelserver.messaging.encoding import encode
from modelserver.messaging.running_worker import find_worker
from modelserver.store.batch import Stored
from modelserver.store.connections import blocking_arguments


class ResultConsumer(RedisResultConsumer):  # type: ignore[misc]
    """Listens for results; stops listening for one without waiting for the server.

    That happens when a result is collected as garbage. Celery would then try for a
    minute to reach a server that is gone, only to tell it that.
    """

    #: The thread that stops listening for a result at the moment, 0 for none.
    _forgetting = 0

    def cancel_for(self, task_id: str) -> None:
        """Listen for a task no longer. Does not wait for the server."""
        self._forgetting = threading.get_ident()
        try:
            super().cancel_for(task_id)
        finally:
            self._forgetting = 0

    @contextlib.contextmanager
    def reconnect_on_error(self) -> Iterator[None]:
        """Celery's own, but for a result that nobody listens for any more."""
        if self._forgetting != threading.get_ident():
            with super().reconnect_on_error():
                yield
            return
        # Whoever listens next connects again.
        with contextlib.suppress(*self._connection_errors):
            yield


class Backend(RedisBackend):  # type: ignore[misc]
    """The result backend of clients and workers."""

    ResultConsumer = ResultConsumer

    def _params_from_url(self, url: str, defaults: Any) -> Any:
        arguments = blocking_arguments(url)
        # Of the place, only what the URL says: a socket's path has no host.
        places = ("host", "port", "password")
        rest = {name: defaults[name] for name in defaults if name not in places}
        return rest | arguments

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        tag = (getattr(request, "properties", None) or {}).get("delivery_tag")
        worker = find_worker(self.app)
        if worker is None or not tag:
            return super()._store_result(
                task_id, result, state, traceback, request=request, **kwargs
            )
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        key = self.backend_key(task_id)
        final = state in states.READY_STATES
        request.stored = worker.store(
            tag, key, encode(meta), self._lifetime(state), final
        )
        return result

    def failure(self, task_id: str, error: Exception) -> tuple[str, str, int]:
        """A failure as it would be stored: its key, its value, its life in seconds."""
        meta = self._get_result_meta(
            result=self.prepare_exception(error),
            state=states.FAILURE,
            traceback=None,
            request=None,
        )
        meta["task_id"] = task_id
        value = str(self.encode(meta))
        return self.backend_key(task_id), value, self._lifetime(states.FAILURE)

    def backend_key(self, task_id: str) -> str:
        """The full key of a task's result."""
        return str(bytes_to_str(self.get_key_for_task(task_id)))

    def _lifetime(self, state: str) -> int:
        kept = self.failure_expires if state == states.FAILURE else self.expires
        return int(kept or self.expires or 86_400)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Listen for a task's result; fails at once where the server never answered.

        Celery's own first connection keeps trying for as long as a lost one would.
        """
        if self.result_consumer._pubsub is None:
            self.client.ping()
        super().on_task_call(producer, task_id)

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, **kwargs: Any
    ) -> Any:
        """Count a chord's part by the answer that counts; in a worker in a thread."""
        worker = find_worker(self.app)
        if worker is None:
            return super().on_chord_part_return(request, state, result, **kwargs)
        stored = getattr(request, "stored", Stored.STORED)
        if stored is Stored.FENCED:
            return None  # The worker that has the request now counts its answer.
        if stored is Stored.REPEATED:
            # The run that answered may have died before it counted.
            meta = worker.run_in_thread(self._get_task_meta_for, request.id)
            state, result = meta["status"], meta["result"]
        count = super().on_chord_part_return
        return worker.run_in_thread(count, request, state, result, **kwargs)
