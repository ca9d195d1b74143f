"""Celery's settings for workers, beat and Flower.

What clients share stands in ``modelserver.messaging.wire``; the fleet file holds what
differs from fleet to fleet.
"""

from typing import Any

from modelserver.messaging.wire import (
    STEER,
    STEER_QUEUE,
    CatalogueSource,
    shared_settings,
)
from modelserver.settings import Settings


def configuration(settings: Settings, models: CatalogueSource) -> dict[str, Any]:
    """All settings of the application in ``tasks``."""
    rules = settings.fleet.rules
    return shared_settings(settings, models) | {
        "worker_pool": "workers.pool:AsyncPool",
        "worker_consumer": "workers.celery_hooks:WorkerConsumer",
        # Only shown by Celery: engines' limits bound what is in flight.
        "worker_concurrency": 1024,
        "worker_prefetch_multiplier": 1,
        "worker_disable_rate_limits": True,
        "worker_send_task_events": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_hijack_root_logger": True,
        # The pool keeps the grace time; Celery must not wait a second time.
        "worker_soft_shutdown_timeout": 0.0,
        # A chain's next step may wait for Redis this long: it waits in a thread.
        "task_publish_retry_policy": {
            "max_retries": 60,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1,
        },
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure_or_timeout": True,
        "beat_scheduler": "modelserver.control.scheduler:SteadyScheduler",
        "beat_schedule_filename": str(settings.run_dir / "beat-schedule"),
        "beat_schedule": {
            "steer": {
                "task": STEER,
                "schedule": rules.steer_seconds,
                "options": {"queue": STEER_QUEUE, "expires": 10},
            }
        },
    }
