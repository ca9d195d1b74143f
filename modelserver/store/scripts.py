"""The Lua scripts. Each is atomic on the server, so a killed process leaves no half."""

#: Of each queue and priority there is one main list, of whoever found it empty, and a
#: side list for each other submitter. The ring holds the lists that have messages, the
#: next to be served first; there is none while only the main list has. What follows is
#: the beginning of every script that adds to a list: it keeps the ring.
_ARRIVED = """
local mark = '\\6\\22'
local function main_of(list)
  local cut = string.find(list, mark .. 'from:', 1, true)
  return cut and string.sub(list, 1, cut - 1) or list
end
local function arrived(list, length)
  if length ~= 1 then return end
  local main = main_of(list)
  local ring = main .. mark .. 'ring'
  local going = redis.call('EXISTS', ring) == 1
  if list ~= main and not going and redis.call('EXISTS', main) == 1 then
    redis.call('RPUSH', ring, main)
  end
  if going or list ~= main then redis.call('RPUSH', ring, list) end
end
"""

#: Puts a message into its submitter's list and rings the bell if that was empty.
#: Without a submitter it goes into the main list, which others than our workers read.
#: KEYS main list, deadlines, result; ARGV message, bell, task, deadline ('' for none),
#: submitter, what an older result means ('' for a new id). Returns the list's length,
#: 0 if nothing was put because the answer is there.
PUT = (
    _ARRIVED
    + """
if ARGV[6] ~= '' then
  local head = redis.call('GETRANGE', KEYS[3], 0, 24)
  if string.find(head, '"SUCCESS"', 1, true) then
    if ARGV[6] == 'unless answered' then return 0 end
  else
    redis.call('DEL', KEYS[3])
  end
end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3]) end
local list = KEYS[1]
if ARGV[5] ~= '' then
  local owner = list .. mark .. 'owner'
  if redis.call('EXISTS', list) == 0 then
    redis.call('SET', owner, ARGV[5], 'EX', 86400)
  elseif redis.call('GET', owner) ~= ARGV[5] then
    list = list .. mark .. 'from:' .. ARGV[5]
  end
end
local length = redis.call('LPUSH', list, ARGV[1])
arrived(list, length)
if length == 1 then redis.call('PUBLISH', ARGV[2], '1') end
return length
"""
)

#: Messages in the main lists KEYS and in the side lists beside them.
DEPTH = """
local total = 0
for _, main in ipairs(KEYS) do
  total = total + redis.call('LLEN', main)
  for _, list in ipairs(redis.call('LRANGE', main .. '\\6\\22ring', 0, -1)) do
    if list ~= main then total = total + redis.call('LLEN', list) end
  end
end
return total
"""

#: Deletes the main lists KEYS and the side lists beside them; returns how many
#: messages there were.
PURGE = """
local total = 0
for _, main in ipairs(KEYS) do
  local ring = main .. '\\6\\22ring'
  for _, list in ipairs(redis.call('LRANGE', ring, 0, -1)) do
    if list ~= main then
      total = total + redis.call('LLEN', list)
      redis.call('DEL', list)
    end
  end
  total = total + redis.call('LLEN', main)
  redis.call('DEL', main, ring)
end
return total
"""

#: Sets a held message aside for good. KEYS unacked hash, dead letters; ARGV tag, task,
#: letter. Returns 1 if it was held. The caller acknowledges it afterwards.
BURY = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
"""

#: Puts a dead letter back into its list as if it were new, its result forgotten. KEYS
#: dead letters, list, result; ARGV task, message, bell. Returns 1 if it was there.
RAISE = (
    _ARRIVED
    + """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('DEL', KEYS[3])
arrived(KEYS[2], redis.call('LPUSH', KEYS[2], ARGV[2]))
redis.call('PUBLISH', ARGV[3], '1')
return 1
"""
)

#: Moves up to ARGV[1] messages from the main lists KEYS[3..] (most urgent first) and
#: the lists beside them, in equal shares, into the worker's hash KEYS[1], tagged by the
#: worker's own number of the pull ARGV[2] and the counter KEYS[2], which may go back in
#: a failover. Returns {tag, list, message, ...}. A message that is delivered twice has
#: two tags: that is what fences a late answer.
PULL = """
local room = tonumber(ARGV[1])
local out = {}
local function take(list, most)
  local got = redis.call('RPOP', list, most) or {}
  for _, message in ipairs(got) do
    local tag = ARGV[2] .. '-' .. redis.call('INCR', KEYS[2])
    redis.call('HSET', KEYS[1], tag, list .. '\\n' .. message)
    out[#out + 1] = tag
    out[#out + 1] = list
    out[#out + 1] = message
  end
  room = room - #got
end
for i = 3, #KEYS do
  if room <= 0 then break end
  local ring = KEYS[i] .. '\\6\\22ring'
  local lists = redis.call('LLEN', ring)
  if lists == 0 then take(KEYS[i], room) end
  while lists > 0 and room > 0 do
    local share = math.max(1, math.floor(room / lists))
    for _ = 1, lists do
      if room <= 0 then break end
      local list = redis.call('LPOP', ring)
      take(list, math.min(share, room))
      if redis.call('EXISTS', list) == 1 then redis.call('RPUSH', ring, list) end
    end
    lists = redis.call('LLEN', ring)
  end
  if lists == 1 and redis.call('LINDEX', ring, 0) == KEYS[i] then
    redis.call('DEL', ring)
  end
end
return out
"""

#: Stores results, each unless its delivery is no longer the worker's or a final result
#: is there. KEYS unacked hash, totals, then the results' keys; ARGV for each result its
#: tag, value, seconds kept, 1 if its state is final. An empty tag leaves the delivery
#: unchecked (results on a server of their own cannot see it). Returns for each: 1
#: stored, 0 not the worker's delivery, -1 answered before.
STORE = """
local out = {}
local totals = {}
local function count(name)
  totals[name] = (totals[name] or 0) + 1
end
local function store(key, tag, value, seconds, final)
  if tag ~= '' and redis.call('HEXISTS', KEYS[1], tag) == 0 then
    count('fenced')
    return 0
  end
  local head = redis.call('GETRANGE', key, 0, 24)
  if string.find(head, '"SUCCESS"', 1, true) or string.find(head, '"FAILURE"', 1, true)
      or string.find(head, '"REVOKED"', 1, true) then
    count('repeated')
    return -1
  end
  redis.call('SET', key, value, 'EX', seconds)
  redis.call('PUBLISH', key, value)
  if final == '1' then count('stored') end
  return 1
end
for i = 3, #KEYS do
  local at = (i - 3) * 4
  out[i - 2] = store(KEYS[i], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
end
for name, number in pairs(totals) do redis.call('HINCRBY', KEYS[2], name, number) end
return out
"""

#: Gives a held message back to the head of its list, changed to ARGV[2] if that is not
#: empty. KEYS unacked hash, list; ARGV tag, message, bell. Returns 1 if it was held.
GIVE_BACK = (
    _ARRIVED
    + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local message = ARGV[2]
if message == '' then message = string.sub(held, #KEYS[2] + 2) end
redis.call('HDEL', KEYS[1], ARGV[1])
arrived(KEYS[2], redis.call('RPUSH', KEYS[2], message))
redis.call('PUBLISH', ARGV[3], '1')
return 1
"""
)

#: Sets a held message aside until it is due. KEYS unacked hash, delayed set; ARGV tag,
#: due time. The member keeps list and message. Returns 1 if it was held.
PARK = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
redis.call('ZADD', KEYS[2], ARGV[2], held)
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
"""

#: Puts due messages back into their lists. KEYS delayed set; ARGV most to move.
#: The lists are named in the members: a cluster would need them in KEYS.
WAKE = (
    _ARRIVED
    + """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do
  local cut = string.find(member, '\\n', 1, true)
  local list = string.sub(member, 1, cut - 1)
  arrived(list, redis.call('RPUSH', list, string.sub(member, cut + 1)))
  redis.call('ZREM', KEYS[1], member)
end
return #due
"""
)

#: Records an engine's requests. KEYS samples, counters; ARGV number kept, seconds kept,
#: how many counters follow, each name and addend, then the packed samples.
RECORD = """
local counters = tonumber(ARGV[3])
for i = 1, counters do
  redis.call('HINCRBY', KEYS[2], ARGV[2 * i + 2], ARGV[2 * i + 3])
end
for i = 2 * counters + 4, #ARGV do redis.call('LPUSH', KEYS[1], ARGV[i]) end
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[1]) - 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""

#: Forgets a dead worker that holds nothing more. KEYS lease, unacked hash, set of
#: workers; ARGV worker. Returns 1 if it was forgotten.
FORGET = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('SREM', KEYS[3], ARGV[1])
return 1
"""

#: Gives a dead worker's message back, unless that worker lives again. KEYS unacked
#: hash, list, lease; ARGV tag, message, bell. Returns 1 if it was moved.
REAP = (
    _ARRIVED
    + """
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
arrived(KEYS[2], redis.call('RPUSH', KEYS[2], ARGV[2]))
redis.call('PUBLISH', ARGV[3], '1')
return 1
"""
)

#: Takes the controller's lock, or renews one's own. KEYS lock, token; ARGV owner,
#: milliseconds. Returns the fencing token, 0 if somebody else holds the lock.
LOCK = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('INCR', KEYS[2])
"""

#: Frees a lock that is still one's own. KEYS lock; ARGV owner.
UNLOCK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

#: Writes the fleet unless somebody was faster. KEYS fleet, changed; ARGV the version
#: that it replaces (0: none), JSON. Returns 1 if written.
PUBLISH_FLEET = """
local present, version = redis.call('GET', KEYS[1]), 0
if present then version = cjson.decode(present)['version'] or 0 end
if version ~= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('PUBLISH', KEYS[2], 'fleet')
return 1
"""

#: Writes wishes and what control remembers, both or neither: only if the token is still
#: the newest. KEYS token, desired, changed, memory; ARGV token, number of wishes, that
#: many pairs of engine and JSON ('' deletes), then pairs of a part of the memory and
#: its bytes. Returns 1 if written.
WISH = """
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

#: Does what the other scripts do, with a key that it leaves away again.
TRY_RIGHTS = """
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
