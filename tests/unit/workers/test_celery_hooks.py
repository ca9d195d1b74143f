"""Task events are thinned by whole tasks; subscriptions follow the engines."""

from dataclasses import dataclass, field
from types import SimpleNamespace

from kombu import Queue
from kombu.asynchronous import Hub

from modelserver.messaging.wire import CONTROL_QUEUE
from workers.celery_hooks import EventThinning, ModelSubscriptions


def passing(
    thinning: EventThinning, task: str, end: str = "task-succeeded"
) -> list[tuple[str, str]]:
    """Which of a task's events pass."""
    types = ("task-received", "task-started", end)
    return [(type, task) for type in types if thinning.passes(type, task)]


def test_a_task_has_all_of_its_events_or_none():
    thinning = EventThinning(tasks_per_second=2)
    sent = [event for place in range(50) for event in passing(thinning, str(place))]
    tasks = {task for _, task in sent}
    # The run may cross into another second.
    assert len(tasks) in (2, 4)
    assert len(sent) == 3 * len(tasks)


def test_a_failure_always_passes():
    sent = passing(EventThinning(tasks_per_second=0), "t", end="task-failed")
    assert sent == [("task-failed", "t")]


def test_events_of_workers_pass():
    assert EventThinning(tasks_per_second=0).passes("worker-heartbeat", None)


def test_below_the_rate_nothing_is_left_out():
    thinning = EventThinning(tasks_per_second=1000)
    assert sum(len(passing(thinning, str(place))) for place in range(100)) == 300


def test_what_is_wanted_is_known_before_an_event_is_made():
    all_of_them, none = (
        EventThinning(tasks_per_second=1000),
        EventThinning(tasks_per_second=0),
    )
    assert all_of_them.passes("task-received", "t")
    assert all_of_them.wants("task-started", "t")
    assert all_of_them.passes("task-succeeded", "t")
    assert not all_of_them.wants("task-started", "t")
    assert not none.passes("task-received", "t")
    assert not none.wants("task-started", "t")
    assert none.wants("task-failed", "t")


@dataclass
class Consumer:
    """What the subscriptions use of Celery's consumer, with a real hub."""

    follower: SimpleNamespace
    hub: Hub = field(default_factory=Hub)
    queues: list[Queue] = field(default_factory=lambda: [Queue(CONTROL_QUEUE)])

    @property
    def pool(self) -> SimpleNamespace:
        """The pool, whose service has the follower and an intake."""
        intake = SimpleNamespace(attach=lambda channel: None)
        service = SimpleNamespace(follower=self.follower, intake=intake)
        return SimpleNamespace(service=service)

    @property
    def task_consumer(self) -> SimpleNamespace:
        """The consumer set."""
        return SimpleNamespace(queues=self.queues, channel=None)

    def add_task_queue(self, name: str) -> None:
        """Consume from a queue, too."""
        self.queues.append(Queue(name))

    def cancel_task_queue(self, name: str) -> None:
        """Consume from it no longer."""
        self.queues = [queue for queue in self.queues if queue.name != name]


def test_changes_that_meet_in_one_round_of_the_hub_end_as_the_last():
    follower = SimpleNamespace(models=frozenset(), known={"writer"})
    consumer = Consumer(follower)
    subscriptions = ModelSubscriptions(consumer)
    subscriptions.start(consumer)
    for _ in range(10):
        for models in (set(), {"writer"}, set(), {"writer"}):
            follower.models = frozenset(models)
            follower.on_models()
        consumer.hub.run_once()
        assert {queue.name for queue in consumer.queues} == {CONTROL_QUEUE, "writer"}
    consumer.hub.close()
