"""Task events are thinned by whole tasks."""

from workers.celery_hooks import EventThinning


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
