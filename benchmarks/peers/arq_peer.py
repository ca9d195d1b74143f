"""arq; it notes a job as done after the work."""

import asyncio

from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job
from arq.worker import func

from benchmarks.peers import calls, producer


async def complete(context, prompt):
    return await calls.complete_async(prompt)


class WorkerSettings:
    functions = (func(complete, name="complete"),)
    redis_settings = RedisSettings.from_dsn(calls.REDIS_URL)
    max_jobs = calls.IN_FLIGHT
    # Its default of half a second would leave it idle most of the time.
    poll_delay = 0.01


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(create_pool(WorkerSettings.redis_settings))

    def submit(prompt):
        job = loop.run_until_complete(pool.enqueue_job("complete", prompt))
        return job.job_id, f"arq:result:{job.job_id}"

    def read(task):
        return loop.run_until_complete(Job(task, pool).result(timeout=30))

    producer.main(submit, read)
