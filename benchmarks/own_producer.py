"""The peers' producer for ours: ``python -m benchmarks.own_producer ACTION``."""

from benchmarks.peers import producer
from modelserver.api import client

app = client()
complete = app.modelserver_tasks[0]


def submit(prompt: str) -> tuple[str, str]:
    """Send one request; its id and its result's key."""
    sent = complete.delay(prompt, max_tokens=64)
    return sent.id, app.backend.backend_key(sent.id)


def read(task: str) -> str:
    """The answer."""
    return str(app.AsyncResult(task).get(timeout=30))


if __name__ == "__main__":
    producer.main(submit, read)
