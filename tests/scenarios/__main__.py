"""``python -m tests.scenarios [NAME]``: all scenarios, or the one that is named."""

import sys

from benchmarks.report import main
from tests.scenarios.cases import healthy, hung_engine, lost_host, short_of_gpus
from tests.scenarios.moves import MOVES
from tests.scenarios.rank import RANK
from tests.scenarios.table import TABLES
from tests.scenarios.turns import TURNS

CASES = {
    "healthy": healthy,
    "hung-engine": hung_engine,
    "lost-host": lost_host,
    "short-of-gpus": short_of_gpus,
    **MOVES,
    **RANK,
    **TURNS,
    **TABLES,
}

if __name__ == "__main__":
    sys.exit(main("scenarios", CASES, sys.argv[1:]))
