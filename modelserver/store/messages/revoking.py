"""Revoked tasks: kept in the store, so that workers that start later know them."""

from collections.abc import Iterator, Sequence

from modelserver.store.keys import Keys

#: For so long a revoked task is remembered, in seconds.
REVOKED_SECONDS = 7 * 86_400
#: Most tasks that one script notes.
MOST_REVOKED = 1_000

#: Notes revoked tasks, and forgets old ones. KEYS revoked; ARGV seconds kept, tasks.
REVOKE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
return #ARGV - 1
"""


def revocations(keys: Keys, tasks: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The arguments of EVAL that note all of them, a part at a time."""
    for start in range(0, len(tasks), MOST_REVOKED):
        part = tasks[start : start + MOST_REVOKED]
        yield (REVOKE, "1", keys.revoked, str(REVOKED_SECONDS), *part)
