"""What a keeper says of its engine: lines in the log, and a report to the store."""

import logging
import time
from dataclasses import replace

from launcher.engine.start import Start
from modelserver.policy.lifecycle import Life
from modelserver.values import (
    DEFAULT_RUNNING,
    EngineReport,
    EngineSpec,
    EngineState,
    ModelSpec,
    Wish,
)

_log = logging.getLogger(__name__)


def log_change(engine: str, before: Life, life: Life, now: float) -> None:
    """Log one change of state."""
    bad = life.state in (EngineState.BACKOFF, EngineState.FATAL)
    seconds = f" seconds={now - before.since:.1f}" if life.since == now else ""
    news = life.reason and life.reason != before.reason
    reason = f' reason="{life.reason}"' if news else ""
    _log.log(
        logging.WARNING if bad else logging.INFO,
        "engine=%s %s -> %s incarnation=%d%s%s",
        *(engine, before.state.value, life.state.value, life.incarnation),
        *(seconds, reason),
    )


def with_wish(engine: EngineReport, wish: Wish, model: ModelSpec) -> EngineReport:
    """The report with how control wants the engine used; its limit is never raised."""
    most = model.max_running or engine.capacity or DEFAULT_RUNNING
    return replace(
        engine,
        limit=min(wish.limit or most, most),
        hold=wish.hold if engine.serves else "",
        abort=wish.abort if wish.abort == engine.incarnation else 0,
    )


def engine_report(
    spec: EngineSpec, model: ModelSpec, host: str, life: Life, start: Start | None
) -> EngineReport:
    """The report, without the times and measurements that the keeper adds."""
    process = start.process if start else None
    reason, doing = life.reason, ""
    if start and life.state is EngineState.STARTING:
        doing = start.progress.doing
        reason = reason or start.describe_wait(time.monotonic())
    return EngineReport(
        id=spec.id,
        model=spec.model,
        host=host,
        state=life.state,
        incarnation=life.incarnation,
        url=start.url if start else "",
        pid=process.identity.pid if process else 0,
        gpus=start.place.gpus if start else spec.gpus,
        reason=reason,
        starts=life.starts,
        progress=doing,
        capacity=start.record.capacity if start and not model.max_running else 0,
        meeting_port=start.record.meeting_port if start else 0,
    )
