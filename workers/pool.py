"""Celery's pool interface over one asyncio loop: hundreds of requests in one process.

Tasks whose ``run`` waits through the bridge run on the loop; all others run in a few
threads. Time limits, revoke(terminate=True) and a shutdown's give-back cancel the
asyncio task, which closes the connection to the engine, which stops generating.
"""

import asyncio
import os
import signal as signals
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_logger
from celery.worker import state

from modelserver.messaging.wire import STEER
from workers import bridge
from workers.delivery.courier import FAULT_WAIT_SECONDS
from workers.intake import CONTROL_ROOM
from workers.service import Service

logger = get_logger(__name__)

#: How often a shutdown looks whether it was told to hurry, in seconds.
SHUTDOWN_LOOK_SECONDS = 0.1


class Job:
    """One task that runs, as Celery's request holds it."""

    def __init__(self, tag: str) -> None:
        #: The delivery tag of its message.
        self.tag = tag
        self.task: asyncio.Task[None] | None = None
        #: What is raised inside the task when it is cancelled; None ends it silently.
        self.interruption: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def interrupt(self, error: BaseException | None) -> None:
        """End the task by ``error`` raised inside it, or silently by None."""
        self.interruption = error
        if self.task is not None:
            self.task.cancel()

    def terminate(self, signum: int = signals.SIGTERM) -> None:
        """End the task silently; Celery has told everybody already. Any thread."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.interrupt, None)


class AsyncPool(BasePool):  # type: ignore[misc]
    """The pool. ``worker_pool = "workers.pool:AsyncPool"`` chooses it."""

    signal_safe = False
    body_can_be_buffer = False
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loop = asyncio.new_event_loop()
        self.service = Service(self.app, self.loop)
        self._thread = threading.Thread(
            target=self._run_loop, name="requests", daemon=True
        )
        # For tasks that are not made for the loop: users' own, Celery's own. Control
        # has a thread of its own, however slow they are.
        self._threads = ThreadPoolExecutor(CONTROL_ROOM, thread_name_prefix="task")
        self._control = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._jobs: set[Job] = set()
        self._pid = os.getpid()

    # Life.

    def on_start(self) -> None:
        """Start the loop's thread and everything that runs on it."""
        self._thread.start()
        self._call(self.service.start()).result()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _call(self, coroutine: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def on_stop(self) -> None:
        """Let what runs finish within the grace time, give back the rest."""
        self.service.stop_pulling()
        end = time.monotonic() + self.service.grace_seconds
        while self._jobs and time.monotonic() < end and not state.should_terminate:
            time.sleep(SHUTDOWN_LOOK_SECONDS)
        self._end()

    def on_terminate(self) -> None:
        """Give everything back at once."""
        self.service.stop_pulling()
        self._end()

    def _end(self) -> None:
        if not self._thread.is_alive():
            return
        self._call(self._give_up_jobs()).result(timeout=10)
        self._call(self.service.close()).result(timeout=30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=5)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._control.shutdown(wait=False, cancel_futures=True)

    async def _give_up_jobs(self) -> None:
        jobs = [job for job in self._jobs if job.task is not None]
        for job in jobs:
            job.interrupt(None)
        await asyncio.gather(
            *[job.task for job in jobs if job.task], return_exceptions=True
        )

    # Tasks.

    def on_apply(
        self, target: Callable[..., Any], args: Any, kwargs: Any, **options: Any
    ) -> Job:
        """Begin a task. May be called from any thread."""
        properties = args[2].get("properties") or {}
        job = Job(str(properties.get("delivery_tag", "")))
        job.loop = self.loop
        self._jobs.add(job)
        if threading.get_ident() == self._thread.ident:
            self._begin(job, target, args, kwargs, options)
        else:
            self.loop.call_soon_threadsafe(
                self._begin, job, target, args, kwargs, options
            )
        return job

    def _begin(
        self,
        job: Job,
        target: Callable[..., Any],
        args: Any,
        kwargs: Any,
        options: dict[str, Any],
    ) -> None:
        job.task = self.loop.create_task(self._run(job, target, args, kwargs, options))
        self.service.started(job.tag, job)

    async def _run(
        self,
        job: Job,
        target: Callable[..., Any],
        args: Any,
        kwargs: Any,
        options: dict[str, Any],
    ) -> None:
        on_loop = getattr(self.app.tasks.get(args[0]), "on_loop", False)
        timers = self._start_timers(job, options, on_loop)
        try:
            options["accept_callback"](self._pid, time.monotonic())
            if on_loop:
                outcome = await self._on_loop(job, target, args, kwargs)
            else:
                outcome = await self.loop.run_in_executor(
                    self._threads_for(args[0]), lambda: target(*args, **kwargs)
                )
            options["callback"](outcome)
        except asyncio.CancelledError:
            # Whoever cancelled has settled the message: revoked, timed out, or given
            # back. It must be neither acknowledged nor reported here.
            pass
        except (SystemExit, KeyboardInterrupt) as error:
            # Let through, it would end the loop and all that runs on it.
            fault = RuntimeError(f"the task raised {error!r}")
            info = ExceptionInfo((RuntimeError, fault, error.__traceback__))
            try:
                await self.loop.run_in_executor(None, options["error_callback"], info)
            except Exception as further:
                await self._settle_fault(job, args, options, further)
        except Exception as error:
            await self._settle_fault(job, args, options, error)
        finally:
            for timer in timers:
                timer.cancel()
            self._jobs.discard(job)

    def _threads_for(self, task: str) -> ThreadPoolExecutor:
        return self._control if task == STEER else self._threads

    async def _settle_fault(
        self, job: Job, args: Any, options: dict[str, Any], error: Exception
    ) -> None:
        """Give back what could not even be run; the second time it fails."""
        logger.debug("task=%s failed outside its body", args[1], exc_info=error)
        courier = self.service.courier
        if job.tag not in courier.held:
            return  # It is answered.
        if courier.is_last_fault(job.tag, error):
            logger.error("task=%s could not be run: %r", args[1], error)
            await self.service.fail(job.tag, args[1], error, args[2])
            end: Exception = Ignore()
        else:
            await asyncio.sleep(FAULT_WAIT_SECONDS)
            end = Reject(repr(error), requeue=True)
        # Through Celery's request, so that it is no longer counted as active.
        info = ExceptionInfo((type(end), end, error.__traceback__))
        try:
            options["error_callback"](info)
        except Exception as further:
            logger.debug("task=%s could not be ended", args[1], exc_info=further)
        if isinstance(end, Ignore):
            courier.ack(job.tag)
        else:
            courier.give_back(job.tag)

    async def _on_loop(
        self, job: Job, target: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        def translate(error: BaseException) -> BaseException:
            if isinstance(error, asyncio.CancelledError) and job.interruption:
                if task := asyncio.current_task():
                    task.uncancel()
                return job.interruption
            return error

        return await bridge.run(target, args, kwargs, translate)

    def _start_timers(
        self, job: Job, options: dict[str, Any], on_loop: bool
    ) -> list[asyncio.TimerHandle]:
        timers = []
        tell = options["timeout_callback"]
        soft, hard = options.get("soft_timeout"), options.get("timeout")
        if soft and on_loop:  # Nothing can be raised inside a thread.
            timers.append(self.loop.call_later(soft, self._end_softly, job, tell, soft))
        if hard:
            timers.append(self.loop.call_later(hard, self._end_hard, job, tell, hard))
        return timers

    def _end_softly(self, job: Job, tell: Callable[..., Any], seconds: float) -> None:
        tell(soft=True, timeout=seconds)
        job.interrupt(SoftTimeLimitExceeded(seconds))

    def _end_hard(self, job: Job, tell: Callable[..., Any], seconds: float) -> None:
        job.interrupt(None)
        # Celery stores the failure by a blocking call: not on the loop, and not in the
        # tasks' threads, which may all be stuck.
        self.loop.run_in_executor(None, lambda: tell(soft=False, timeout=seconds))

    # What Celery asks of a pool.

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Does nothing: all jobs share a process; Celery ends the Job itself."""

    @property
    def num_processes(self) -> int:
        """Requests that may be in flight, for Celery's reports."""
        return int(self.limit)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return info | {"in-flight": len(self._jobs)} | self.service.info()
