"""The model of delivery: 100,000 steps in any order, on a real server."""

import random
import tempfile
import time
from pathlib import Path

from benchmarks.report import Goal, Report
from tests.model.running import run_model
from tests.support.processes import ValkeyProcess

STEPS = 100_000
#: It ends then, however few steps it has taken: seconds.
MOST_SECONDS = 600.0


def delivery_model() -> Report:
    """Producers, workers, reapers and failovers in any order: every promise holds."""
    first_seed = random.randrange(1_000_000)
    print(f"seed {first_seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyProcess(Path(folder)).start()
        try:
            began = time.monotonic()
            steps = run_model(server.url, STEPS, MOST_SECONDS, first_seed)
            seconds = time.monotonic() - began
        finally:
            server.stop()
    return Report(
        columns=("steps", "seconds", "steps/s"),
        rows=((steps, round(seconds), round(steps / seconds)),),
        goals=(Goal("steps without a broken promise", steps, STEPS),),
        notes=(f"first seed {first_seed}",),
    )
