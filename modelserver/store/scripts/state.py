"""The Lua scripts of the fleet's state: control, samples, memory."""

from modelserver.store.scripts.atomic import ALLOW_OOM

#: Runs one command at the memory limit too. ARGV the command.
ANY_COMMAND = ALLOW_OOM + "return redis.call(unpack(ARGV))"

#: Looks at the server's memory, at most once a second, and notes where it is short.
#: KEYS the note, the last look; ARGV the share of the limit above which it is short,
#: seconds that the note lasts. Returns the note, '' for none.
WATCH_MEMORY = (
    ALLOW_OOM
    + """
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', 900) then
  return redis.call('GET', KEYS[1]) or ''
end
local info = redis.call('INFO', 'memory')
local used = tonumber(string.match(info, 'used_memory:(%d+)'))
local limit = tonumber(string.match(info, 'maxmemory:(%d+)'))
if limit == 0 or used < limit * tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1])
  return ''
end
local note = string.format('%d of %d MiB are used', used / 1048576, limit / 1048576)
redis.call('SET', KEYS[1], note, 'EX', ARGV[2])
return note
"""
)

#: Records an engine's requests. KEYS samples, counters, the times of its model; ARGV
#: number kept, seconds kept, how many counters follow, how many of these (the last) are
#: the model's; each name and addend, then the packed samples.
RECORD = (
    ALLOW_OOM
    + """
local counters = tonumber(ARGV[3])
local own = counters - tonumber(ARGV[4])
for i = 1, counters do
  local key = i > own and KEYS[3] or KEYS[2]
  redis.call('HINCRBY', key, ARGV[2 * i + 3], ARGV[2 * i + 4])
end
for i = 2 * counters + 5, #ARGV do redis.call('LPUSH', KEYS[1], ARGV[i]) end
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[1]) - 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
if own < counters then redis.call('EXPIRE', KEYS[3], ARGV[2]) end
return 1
"""
)

#: Takes the controller's lock, or renews one's own. KEYS lock, token; ARGV owner,
#: milliseconds. Returns the fencing token, 0 if somebody else holds the lock.
LOCK = (
    ALLOW_OOM
    + """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('INCR', KEYS[2])
"""
)

#: Frees a lock that is still one's own. KEYS lock; ARGV owner.
UNLOCK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

#: Writes the fleet unless somebody was faster. KEYS fleet, changed; ARGV the version
#: that it replaces (0: none), JSON. Returns 1 if written.
PUBLISH_FLEET = (
    ALLOW_OOM
    + """
local present, version = redis.call('GET', KEYS[1]), 0
if present then
  local ok, values = pcall(cjson.decode, present)
  version = ok and type(values) == 'table' and tonumber(values['version']) or 0
end
if version ~= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('PUBLISH', KEYS[2], 'fleet')
return 1
"""
)

#: Writes wishes and what control remembers, both or neither: only if the token is still
#: the newest. KEYS token, desired, changed, memory; ARGV token, number of wishes, that
#: many pairs of engine and JSON ('' deletes), then pairs of a part of the memory and
#: its bytes. Returns 1 if written.
WISH = (
    ALLOW_OOM
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local memory = 2 * tonumber(ARGV[2]) + 3
for i = 3, memory - 1, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
for i = memory, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
if memory > 3 then redis.call('PUBLISH', KEYS[3], 'desired') end
return 1
"""
)

#: Does what the other scripts do, with a key that it leaves away again.
TRY_RIGHTS = (
    ALLOW_OOM
    + """
for _, command in ipairs({
    {'SET', 1}, {'LPUSH', 1}, {'HSET', 1, 1}, {'ZADD', 1, 1}, {'SADD', 1},
    {'XADD', '*', 1, 1}
}) do
    redis.call(command[1], KEYS[1], unpack(command, 2))
    redis.call('PEXPIRE', KEYS[1], 1000)
    redis.call('DEL', KEYS[1])
end
return redis.call('PUBLISH', KEYS[1], 1)
"""
)

#: Writes a launcher's report; rings only if what workers need of it has changed. KEYS
#: reports, what workers need of each, versions by engine, the last version, changed,
#: incarnations; ARGV engine, report, what workers need of it ('' twice forgets the
#: engine), its incarnation: the counter is never behind it.
REPORT_ENGINE = (
    ALLOW_OOM
    + """
local engine, report, needed = ARGV[1], ARGV[2], ARGV[3]
local counted = tonumber(redis.call('HGET', KEYS[6], engine) or '0')
if counted < tonumber(ARGV[4]) then redis.call('HSET', KEYS[6], engine, ARGV[4]) end
local before = redis.call('HGET', KEYS[2], engine)
if report == '' then
  redis.call('HDEL', KEYS[1], engine)
  redis.call('HDEL', KEYS[2], engine)
else
  redis.call('HSET', KEYS[1], engine, report)
  if before == needed then return 0 end
  redis.call('HSET', KEYS[2], engine, needed)
end
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), engine)
redis.call('PUBLISH', KEYS[5], engine)
return 1
"""
)

#: Counts one more start of an engine. KEYS incarnations; ARGV engine, the last start
#: that its launcher knows of: a store that lost its data counts on from there.
NEXT_INCARNATION = (
    ALLOW_OOM
    + """
local counted = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local following = math.max(counted, tonumber(ARGV[2])) + 1
redis.call('HSET', KEYS[1], ARGV[1], following)
return following
"""
)
