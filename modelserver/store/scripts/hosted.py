"""The Lua scripts of submitted runs: who carries out which, by lease and incarnation.

Of each run there is a hash. ``run`` and ``standing`` are JSON, ``order`` is what
operators want of it; ``holder`` has it until ``until`` (milliseconds), and
``incarnation`` counts its holders: whoever has an older one writes nothing more.
"""

from modelserver.store.scripts.atomic import ALLOW_OOM

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

#: Keeps a new run. KEYS open runs, hash; ARGV id, when, run, standing. Returns 1 if
#: there was none of that id.
ADD_HOSTED = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[2], 'run', ARGV[3], 'standing', ARGV[4])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""

#: Takes a run that nobody holds. KEYS hash; ARGV holder, milliseconds. Returns the new
#: incarnation, 0 if somebody holds it or it is gone, and the holder that did not end in
#: order ('' for none).
TAKE_HOSTED = (
    ALLOW_OOM
    + _NOW
    + """
if redis.call('HEXISTS', KEYS[1], 'run') == 0 then return {0, ''} end
if tonumber(redis.call('HGET', KEYS[1], 'until') or 0) > now then return {0, ''} end
local before = redis.call('HGET', KEYS[1], 'holder') or ''
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', now + ARGV[2])
return {redis.call('HINCRBY', KEYS[1], 'incarnation', 1), before}
"""
)

#: Renews a lease, writes fields with it. KEYS hash; ARGV incarnation, milliseconds,
#: then fields and values. Returns 0 if a newer holder has come or the run is gone, else
#: the operators' order ('' for none).
RENEW_HOSTED = (
    ALLOW_OOM
    + _NOW
    + """
if redis.call('HGET', KEYS[1], 'incarnation') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', now + ARGV[2], unpack(ARGV, 3))
return redis.call('HGET', KEYS[1], 'order') or ''
"""
)

#: Ends a lease. KEYS hash, open runs, ended runs; ARGV incarnation, id, when it ended
#: ('' if it has not), then fields and values. Returns 0 as above, else 1.
RELEASE_HOSTED = (
    ALLOW_OOM
    + """
if redis.call('HGET', KEYS[1], 'incarnation') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'holder', 'until')
if #ARGV > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
if ARGV[3] ~= '' then
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
end
return 1
"""
)

#: Has a run gone on with. KEYS hash, open runs, ended runs; ARGV id, when it was
#: submitted, run, standing. A standing that its holder may still write stays. Returns 0
#: if the run is gone.
RESUME_HOSTED = (
    _NOW
    + """
if redis.call('HEXISTS', KEYS[1], 'run') == 0 then return 0 end
redis.call('HDEL', KEYS[1], 'order')
if tonumber(redis.call('HGET', KEYS[1], 'until') or 0) > now then return 1 end
redis.call('HSET', KEYS[1], 'run', ARGV[3], 'standing', ARGV[4])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 1
"""
)

#: Says what operators want. KEYS hash; ARGV order. Returns 0 if the run is gone.
ORDER_HOSTED = """
if redis.call('HEXISTS', KEYS[1], 'run') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'order', ARGV[1])
return 1
"""
