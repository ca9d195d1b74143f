"""What Celery embeds in a message's body: what follows the task."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

#: The names of what may follow a task.
FOLLOWERS = ("callbacks", "errbacks", "chain", "chord")


def find_followers(payload: Any) -> dict[str, Any]:
    """What follows a task, by those names, from its decoded body.

    >>> find_followers([[], {}, {"chain": None, "errbacks": ["x"]}])
    {'errbacks': ['x']}
    """
    match payload:
        case [_, _, dict(embedded)]:
            return {name: embedded[name] for name in FOLLOWERS if embedded.get(name)}
    return {}


def read_payload(message: Mapping[str, Any]) -> Any:
    """The body of a message in a queue, decoded; None if it cannot be read."""
    try:
        body = message["body"]
        return json.loads(body if body.startswith("[") else base64.b64decode(body))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def later_steps(payload: Any) -> Iterator[str]:
    """The tasks that fail with this one: later steps of its chain, its chord."""
    followers = find_followers(payload)
    steps = [*followers.get("chain", ()), *filter(None, [followers.get("chord")])]
    for step in steps:  # Grows: a step may be a chord with a body.
        if task := (step.get("options") or {}).get("task_id"):
            yield task
        if step.get("subtask_type") == "chord" and step["kwargs"].get("body"):
            steps.append(step["kwargs"]["body"])
