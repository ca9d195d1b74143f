"""Programs that have sent before they fork, and send on in every child."""

import ast
import subprocess
import sys

from benchmarks.report import Goal, Report
from benchmarks.rig import Rig
from tests.support.processes import ROOT

#: Children of the parent, and requests of each.
CHILDREN, REQUESTS = 8, 200
#: How long all of it may take, in seconds.
LIMIT_SECONDS = 180.0

#: A parent that has sent, waits for others, and forks. Prints, for each child, the
#: right answers and all.
PROGRAM = f"""
import multiprocessing
from modelserver import complete
from tests.engine.openai_api import answer_text

def ask(child):
    prompts = [f"child {{child}} asks {{n}}" for n in range({REQUESTS})]
    texts = [result.get(timeout=100) for result in map(complete.delay, prompts)]
    return sum(map(str.__eq__, texts, map(answer_text, prompts))), len(texts)

if __name__ == "__main__":
    complete.delay("before").get(timeout=60)
    held = [complete.delay(f"held {{n}}") for n in range(100)]
    with multiprocessing.get_context("fork").Pool({CHILDREN}) as pool:
        counts = pool.map_async(ask, range({CHILDREN}), chunksize=1).get(timeout=150)
    counts.append((len([result.get(timeout=60) for result in held]), len(held)))
    print(counts)
"""


def forked_clients() -> Report:
    """A parent that has sent forks 8 children, and each sends 200 requests.

    The parent holds 100 results of its own meanwhile. Everybody must get the answers
    to its own prompts.
    """
    with Rig("--latency", "0.1") as rig:
        rig.worker()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env=rig.environment(rig.settings.fleet_file),
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=True,
        )
    counts = ast.literal_eval(done.stdout.splitlines()[-1])
    sent = CHILDREN * REQUESTS + counts[-1][1]
    right = sum(count for count, _ in counts)
    said = len(done.stderr.splitlines())
    goals = (
        Goal("not answered right", sent - right, 0, at_most=True),
        Goal("lines of errors", said, 0, at_most=True),
    )
    columns = ("children", "sent", "right", "lines of errors")
    return Report(columns, ((CHILDREN, sent, right, said),), goals)
