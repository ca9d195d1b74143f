"""taskiq on a Redis list (no acknowledgement) or a Redis stream (acknowledges)."""

import asyncio
import os

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers import calls, producer

Broker = RedisStreamBroker if os.environ["KIND"] == "stream" else ListQueueBroker
results = RedisAsyncResultBackend(calls.REDIS_URL, prefix_str="results")
broker = Broker(calls.REDIS_URL).with_result_backend(results)


@broker.task(task_name="complete")
async def complete(prompt: str) -> str:
    return await calls.complete_async(prompt)


loop = asyncio.new_event_loop()


def submit(prompt):
    sent = loop.run_until_complete(complete.kiq(prompt))
    return sent.task_id, f"results:{sent.task_id}"


def read(task):
    return loop.run_until_complete(results.get_result(task)).return_value


if __name__ == "__main__":
    loop.run_until_complete(broker.startup())
    producer.main(submit, read)
    loop.run_until_complete(broker.shutdown())
