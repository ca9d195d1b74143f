"""Engines that run on this host without a launcher that looks after them.

``python -m launcher.host.unowned`` prints them as JSON: each one's pid with a sentence.
"""

import json
from pathlib import Path

from launcher.host.lock import is_locked, lock_file
from launcher.host.process import find_engines
from launcher.host.records import Records
from modelserver.settings import load


def find_unowned(home: Path) -> dict[int, str]:
    """The engines of this home without a record or a launcher, by pid, with why."""
    found = {}
    runs = home / "run"
    for pid, mark, run in find_engines():
        folder = Path(run)
        if not folder.is_relative_to(runs):
            continue
        known = {
            each.process.mark: each for each in Records(folder / "engines").read_all()
        }
        if mark not in known:
            found[pid] = f"no record in {folder} tells of it"
        elif not is_locked(lock_file(folder)):
            engine = known[mark].spec.id
            found[pid] = f"engine {engine} of {folder}, whose launcher does not run"
    return found


if __name__ == "__main__":
    print(json.dumps(find_unowned(load().home)))
