"""Celery's Redis result backend: reading in blocks, storing through a worker's batches.

A client looks for what it waits for in blocks and listens for the rest; what nobody
waits for costs nothing. Inside a worker's pool a result goes into the batch of
the moment together with the check that the request is still this worker's, and the task
goes on when the batch has been written: the result stands before the acknowledgement.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import orjson
from celery import states
from celery.backends.asynchronous import BaseResultConsumer
from celery.backends.redis import RedisBackend
from celery.exceptions import TaskRevokedError
from celery.utils.log import get_logger
from kombu.exceptions import EncodeError, OperationalError
from kombu.utils.encoding import bytes_to_str
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from modelserver.errors import StoreUnreachableError
from modelserver.messaging.encoding import encode
from modelserver.messaging.followers import give_all_ids, published_for
from modelserver.messaging.listening import AnswerListener, Wait, blocks
from modelserver.messaging.running_worker import find_worker, find_worker_of_thread
from modelserver.server_address import plain_url
from modelserver.store.batch import BY_NOTICE, NOTICE_BYTES, Stored, StoreResult
from modelserver.store.messages.embedded import later_steps
from modelserver.store.server.connections import blocking_arguments

logger = get_logger(__name__)

#: What is raised where the server cannot be reached.
UNREACHABLE = (OperationalError, RedisError, StoreUnreachableError, OSError)


class ResultConsumer(BaseResultConsumer):  # type: ignore[misc]
    """Celery's place for what listens. Nothing is subscribed to before a wait."""

    def __init__(self, backend: "Backend", *args: Any, **kwargs: Any) -> None:
        super().__init__(backend, *args, **kwargs)
        self.listener = AnswerListener(
            lambda: backend.client, backend.decode_meta, plain_url(backend.url or "")
        )

    def consume_from(self, task_id: str) -> None:
        """Does nothing: whoever waits listens."""

    def cancel_for(self, task_id: str) -> None:
        """Does nothing: whoever waited has stopped to listen."""

    def drain_events(self, timeout: float | None = None) -> None:
        """Does nothing: the listener has a thread of its own."""

    def stop(self) -> None:
        """Listen no more."""
        self.listener.stop()

    def on_after_fork(self) -> None:
        """Begin anew in a forked child."""
        self.listener.after_fork()


class Backend(RedisBackend):  # type: ignore[misc]
    """The result backend of clients and workers."""

    ResultConsumer = ResultConsumer

    def _params_from_url(self, url: str, defaults: Any) -> Any:
        arguments = blocking_arguments(url)
        # Of the place, only what the URL says: a socket's path has no host.
        places = ("host", "port", "password")
        rest = {name: defaults[name] for name in defaults if name not in places}
        # Whoever waits has a longer patience of its own, see ``listening``.
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 2)
        return rest | arguments | {"retry": retry}

    def as_uri(self, include_password: bool = False) -> str:
        """The URL, which Celery cannot read where it names several sentinels."""
        return str(self.url) if include_password else plain_url(self.url or "")

    def after_fork(self) -> None:
        """Leave connections and waits to the parent; a forked child has its own."""
        self.result_consumer._after_fork()
        self.__dict__.pop("client", None)

    # Reading.

    def decode_meta(self, payload: bytes) -> dict[str, Any]:
        """A stored result, by orjson unless kombu's types are in it."""
        if b"__type__" in payload or not payload.startswith(b"{"):
            return dict(self.decode(payload))
        return dict(orjson.loads(payload))

    def look(self, results: Sequence[Any]) -> Iterator[dict[str, Any]]:
        """Read what is stored for these results, in blocks; each keeps what it gets."""
        for block in blocks(results):
            values = self.client.mget([self.backend_key(each.id) for each in block])
            for result, value in zip(block, values, strict=True):
                if value is not None:
                    meta = self.decode_meta(value)
                    result._maybe_set_cache(meta)
                    yield meta

    def arrivals(
        self,
        results: Sequence[Any],
        timeout: float | None = None,
        interval: float = 0.5,
        on_interval: Callable[[], None] | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
    ) -> Iterator[Any]:
        """Each result once it is there: what is there in order, then as they come."""
        ends_at = None if timeout is None else time.monotonic() + timeout
        missing: list[Any] = []
        for block in blocks(results):
            # Where Redis does not answer, the listener is more patient.
            with suppress(RedisError):
                for meta in self.look([each for each in block if not each._cache]):
                    if on_message:
                        on_message(meta)
            for result in block:
                if result._cache:
                    yield result
                else:
                    missing.append(result)
        if not missing:
            return
        try:
            with Wait(self.result_consumer.listener, missing, self.backend_key) as wait:
                yield from wait.arrivals(ends_at, interval, on_interval, on_message)
        except KeyboardInterrupt:
            one = len(missing) == 1
            raise KeyboardInterrupt(
                f"no longer waiting for {missing[0].id if one else len(missing)}: "
                "requests that were sent go on; AsyncResult(id) has the answer later, "
                ".revoke(terminate=True) ends a request"
            ) from None

    def wait_for_pending(
        self,
        result: Any,
        callback: Any = None,
        propagate: bool = True,
        on_interval: Callable[[], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Wait for one result; its value, or its error is raised.

        As with Celery, the error of a step before it goes first: ``on_interval`` tells.
        """
        self._ensure_not_eager()
        kwargs.pop("no_ack", None)
        for _ in self.arrivals([result], on_interval=on_interval, **kwargs):
            pass
        if on_interval:
            on_interval()
        return result.maybe_throw(callback=callback, propagate=propagate)

    def iter_native(
        self, result: Any, no_ack: bool = True, **kwargs: Any
    ) -> Iterator[tuple[str, Any]]:
        """Celery's way to read many results: each one's id and meta as it comes."""
        self._ensure_not_eager()
        plain = [each for each in result.results if hasattr(each, "_cache")]
        for each in self.arrivals(plain, **kwargs):
            yield each.id, each._cache
        for group in result.results:
            if not hasattr(group, "_cache"):
                for _ in self.iter_native(group, **kwargs):
                    pass
                yield group.id, group.children

    def add_pending_result(
        self, result: Any, weak: bool = False, start_drainer: bool = True
    ) -> Any:
        """Does nothing: whoever waits for a result says so when it begins to."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Does nothing, above all when a program ends that waited for nothing."""
        return result

    # Storing.

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
        worker, own = find_worker(self.app), find_worker_of_thread(self.app)
        store = worker.store if worker else None
        # On the loop's thread and outside of a task, waiting for the loop never ends.
        if store is None and own is not None and not own.is_on_loop():
            store = own.store_from_thread
        if store is None or not tag:
            return super()._store_result(
                task_id, result, state, traceback, request=request, **kwargs
            )
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        key = self.backend_key(task_id)
        final = state in states.READY_STATES
        value = encode(meta)
        reads_itself = getattr(request, BY_NOTICE, None)
        by_notice = bool(reads_itself) and len(value) > NOTICE_BYTES
        request.stored = store(
            StoreResult(
                tag, key, value, self._lifetime(state), final, by_notice=by_notice
            )
        )
        if request.stored is Stored.REFUSED and state == states.SUCCESS:
            # Celery makes the failure of the task of it.
            raise EncodeError(
                f"Redis refuses to store the answer, which has {len(value)} bytes"
            )
        return result

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Store an answer, then publish what follows the task."""
        super().mark_as_done(task_id, result, request, store_result, state)
        if request is None or not (request.errbacks or hasattr(request, "followers")):
            return
        failed, value = self._find_stored(request, False, result)
        if failed:
            self._fail_followers(request, value)
        else:
            self._publish_followers(request, value)

    def mark_as_failure(
        self,
        task_id: str,
        exc: Any,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store an error, then settle what follows the task."""
        ours = request is not None and find_worker_of_thread(self.app) is not None
        if not ours or state != states.FAILURE:
            super().mark_as_failure(
                task_id, exc, traceback, request, store_result, call_errbacks, state
            )
            return
        if store_result:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
        if request.chord:
            self.on_chord_part_return(request, state, exc)
        if request.chain or request.callbacks or request.errbacks:
            failed, value = self._find_stored(request, True, exc)
            if failed:
                self._fail_followers(request, value, traceback, call_errbacks)
            else:
                self._publish_followers(request, value)

    def _find_stored(self, request: Any, failed: bool, value: Any) -> tuple[bool, Any]:
        """Whether the answer that counts is an error, and that answer."""
        if getattr(request, "stored", Stored.STORED) is Stored.REPEATED:
            meta = self._in_thread(self._get_task_meta_for, request.id)
            if meta["status"] in states.READY_STATES:
                return meta["status"] != states.SUCCESS, meta["result"]
        return failed, value

    def _publish_followers(self, request: Any, result: Any) -> None:
        send = self.app.amqp._retry_publish
        for follower in getattr(request, "followers", ()):
            try:
                self._as_origin(
                    request, send, follower.publish, (result,), **follower.options
                )
            except UNREACHABLE:
                raise  # The message goes back, and what is missing is done then.
            except Exception as error:
                logger.exception("what follows %s could not be sent", request.id)
                self._fail_followers(request, error, call_errbacks=False)

    def _fail_followers(
        self,
        request: Any,
        error: Any,
        traceback: str | None = None,
        call_errbacks: bool = True,
    ) -> None:
        self._as_origin(request, self._fail_chain, request.chain, error, traceback)
        if call_errbacks and request.errbacks:
            give_all_ids(request.errbacks, f"{request.id}:error")
            call = self._call_task_errbacks
            self._as_origin(request, call, request, error, traceback)

    def _as_origin(
        self, request: Any, function: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Call a function whose messages follow this request, while it is ours."""
        worker = find_worker_of_thread(self.app)
        tag = (request.properties or {}).get("delivery_tag")
        delivery = worker.origin(tag, request.id) if worker and tag else None
        stored = getattr(request, "stored", Stored.STORED)
        if tag and worker and (delivery is None or stored is Stored.FENCED):
            return  # The worker that has the request now does it.

        def call() -> None:
            with published_for(delivery):
                function(*args, **kwargs)

        self._in_thread(call)

    def _in_thread(self, function: Any, *args: Any) -> Any:
        worker = find_worker(self.app)
        return worker.run_in_thread(function, *args) if worker else function(*args)

    def failure(self, task_id: str, error: Exception) -> tuple[str, str, int]:
        """A failure as it would be stored: its key, its value, its life in seconds."""
        return self._error(task_id, error, states.FAILURE)

    def revocation(self, task_id: str, reason: str) -> tuple[str, str, int]:
        """The same of a task that is not executed."""
        return self._error(task_id, TaskRevokedError(reason), states.REVOKED)

    def _error(self, task: str, error: Exception, state: str) -> tuple[str, str, int]:
        meta = self._get_result_meta(
            result=self.prepare_exception(error),
            state=state,
            traceback=None,
            request=None,
        )
        meta["task_id"] = task
        return self.backend_key(task), str(self.encode(meta)), self._lifetime(state)

    def backend_key(self, task_id: str) -> str:
        """The full key of a task's result."""
        return str(bytes_to_str(self.get_key_for_task(task_id)))

    def _lifetime(self, state: str) -> int:
        kept = self.failure_expires if state == states.FAILURE else self.expires
        return int(kept or self.expires or 86_400)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Does nothing: a result is listened for once somebody waits for it."""

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


def revocations(
    backend: Backend, tag: str, task: str, payload: Any, reason: str
) -> list[StoreResult]:
    """The results of a task that is not executed, and of what comes after it."""
    found = []
    for name, own in ((task, tag), *((step, "") for step in later_steps(payload))):
        key, value, seconds = backend.revocation(name, reason)
        found.append(StoreResult(own, key, value, seconds, True, settles=name))
    return found
