"""dramatiq with asynchronous actors; it acknowledges after the work."""

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers import calls, producer

# One connection for each thread; redis allows a hundred unless told.
client = redis.Redis.from_url(calls.REDIS_URL, max_connections=2048)
results = RedisBackend(client=client)
broker = RedisBroker(client=client)
broker.add_middleware(AsyncIO())
broker.add_middleware(Results(backend=results))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
async def complete(prompt):
    return await calls.complete_async(prompt)


def submit(prompt):
    message = complete.send(prompt)
    return message.message_id, results.build_message_key(message)


def read(task):
    message = complete.message("").copy(message_id=task)
    return results.get_result(message, block=True, timeout=30_000)


if __name__ == "__main__":
    producer.main(submit, read)
