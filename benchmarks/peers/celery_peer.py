"""Celery with its own pools and transport, acknowledging late."""

from celery import Celery

from benchmarks.peers import calls, producer

app = Celery("peer", broker=calls.REDIS_URL, backend=calls.REDIS_URL)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_disable_rate_limits=True,
    # Without a bound gevent opens hundreds of connections, and loses results.
    redis_max_connections=64,
    broker_transport_options={"max_connections": 64},
)


@app.task(name="complete")
def complete(prompt):
    return calls.complete(prompt)


def submit(prompt):
    sent = complete.delay(prompt)
    return sent.id, app.backend.get_key_for_task(sent.id).decode()


def read(task):
    return app.AsyncResult(task).get(timeout=30)


if __name__ == "__main__":
    producer.main(submit, read)
