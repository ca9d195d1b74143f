"""What control would decide today from what an earlier decision was made from."""

from collections.abc import Mapping
from typing import Any

from modelserver.operations.words import INDENT
from modelserver.policy.replay import actions_to_json, look_from_json
from modelserver.store import Store
from modelserver.store.fleet.decisions import kept_look


def replayed(store: Store, decision: Mapping[str, str]) -> str:
    """What would be decided today from the same snapshot, in one line."""
    key = decision.get("snapshot", "")
    text = kept_look(store, key) if key else None
    if text is None:
        return f"{INDENT}today: what it was made from is kept no longer"
    look = look_from_json(text)
    about = decision.get("engine", "")
    then = [each for each in look.actions if _subject(each) == about]
    again = actions_to_json(look.again().actions)
    now = [each for each in again if _subject(each) == about]
    if now == then:
        return f"{INDENT}today: the same"
    return f"{INDENT}today: {'; '.join(map(_short, now)) or 'nothing'}"


def _subject(action: Mapping[str, Any]) -> str:
    return str(action["spec"]["id"] if "spec" in action else action["engine"])


def _short(action: Mapping[str, Any]) -> str:
    values = (
        f"{k} {v}" for k, v in action.items() if v and k not in ("engine", "spec")
    )
    return ", ".join(values).removeprefix("action ")
