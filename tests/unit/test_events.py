"""Task events are thinned by whole tasks."""

from workers.events import Thinned


class Sent:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __call__(self, type: str, **fields: str) -> None:
        self.events.append((type, fields.get("uuid", "")))


def one(send: Thinned, task: str, end: str = "task-succeeded") -> None:
    for type in ("task-received", "task-started", end):
        send(type, uuid=task)


def test_a_task_has_all_of_its_events_or_none():
    sent = Sent()
    send = Thinned(sent, tasks_per_second=2)
    for place in range(50):
        one(send, str(place))
    tasks = {task for _, task in sent.events}
    # The run may cross into another second.
    assert len(tasks) in (2, 4)
    assert len(sent.events) == 3 * len(tasks)


def test_a_failure_is_always_sent():
    sent = Sent()
    one(Thinned(sent, tasks_per_second=0), "t", end="task-failed")
    assert sent.events == [("task-failed", "t")]


def test_events_of_workers_pass():
    sent = Sent()
    Thinned(sent, tasks_per_second=0)("worker-heartbeat", freq="2")
    assert sent.events == [("worker-heartbeat", "")]


def test_below_the_rate_nothing_is_left_out():
    sent = Sent()
    send = Thinned(sent, tasks_per_second=1000)
    for place in range(100):
        one(send, str(place))
    assert len(sent.events) == 300
