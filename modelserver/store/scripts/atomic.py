"""The Lua scripts. Each is atomic on the server, so a killed process leaves no half.

A server at its memory limit refuses what may grow, but for scripts that say that they
may. Those that answer, give back or steer do: only they free memory in the end.
"""

#: Begins a script that a server at its memory limit runs all the same.
ALLOW_OOM = "#!lua flags=allow-oom\n"

#: A bundle's message says first how many rows it carries; here, those beyond the first.
#: What a queue's messages carry beyond one each is counted beside its lists.
MORE_ROWS = """
local function more_rows(message)
  if string.sub(message, 1, 8) ~= '{"rows":' then return 0 end
  return math.max(0, tonumber(string.match(message, '^%d+', 9) or 1) - 1)
end
"""

#: Of each queue and priority there is one main list, of whoever found it empty, and a
#: side list for each other submitter. The ring holds the lists that have messages, the
#: next to be served first; there is none while only the main list has. Beside it stand
#: the number of messages in side lists and a mark that the main list is in the ring.
#: What follows is the beginning of every script that adds to a list: it keeps them.
ARRIVED = (
    MORE_ROWS
    + """
local mark = '\\6\\22'
local function main_of(list)
  local cut = string.find(list, mark .. 'from:', 1, true)
  return cut and string.sub(list, 1, cut - 1) or list
end
local function list_for(main, submitter)
  local owner = main .. mark .. 'owner'
  if redis.call('EXISTS', main) == 0 then
    redis.call('SET', owner, submitter, 'EX', 86400)
  elseif redis.call('GET', owner) ~= submitter then
    return main .. mark .. 'from:' .. submitter
  end
  return main
end
local function arrived(list, length, message)
  local main, more = main_of(list), more_rows(message)
  if more > 0 then redis.call('INCRBY', main .. mark .. 'rows', more) end
  if list ~= main then redis.call('INCR', main .. mark .. 'aside') end
  if length ~= 1 then return end
  local ring = main .. mark .. 'ring'
  local going = redis.call('EXISTS', ring) == 1
  if list == main then
    if going and redis.call('SET', main .. mark .. 'in-ring', 1, 'NX') then
      redis.call('RPUSH', ring, main)
    end
    return
  end
  if not going and redis.call('EXISTS', main) == 1 then
    redis.call('SET', main .. mark .. 'in-ring', 1)
    redis.call('RPUSH', ring, main)
  end
  redis.call('RPUSH', ring, list)
end
"""
)

#: Puts a message into its submitter's list and rings the bell if that was empty.
#: Without a submitter it goes into the main list, which others than our workers read.
#: KEYS main list, deadlines, result, the note that memory is short, the note that it
#: was put; ARGV message, bell, task, deadline ('' for none), submitter, what an older
#: result means ('' for a new id), seconds for which it is put once ('' for each time).
#: Returns the list's length, 0 if nothing was put because the answer is there or under
#: way; an error where memory is short. PUT_ON is for work that was accepted before, and
#: heeds no note of memory.
PUT_ON = (
    ALLOW_OOM
    + ARRIVED
    + """
if ARGV[6] ~= '' then
  local head = redis.call('GETRANGE', KEYS[3], 0, 24)
  if string.find(head, '"SUCCESS"', 1, true) then
    if ARGV[6] == 'unless answered' then return 0 end
  else
    redis.call('DEL', KEYS[3])
  end
  if head ~= '' then redis.call('DEL', KEYS[5]) end
end
if ARGV[7] ~= '' and not redis.call('SET', KEYS[5], 1, 'NX', 'EX', ARGV[7]) then
  return 0
end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3]) end
local list = KEYS[1]
if ARGV[5] ~= '' then list = list_for(list, ARGV[5]) end
local length = redis.call('LPUSH', list, ARGV[1])
arrived(list, length, ARGV[1])
if length == 1 then redis.call('PUBLISH', ARGV[2], '1') end
return length
"""
)
PUT = """
local short = redis.call('GET', KEYS[4])
if short then return redis.error_reply('OOM ' .. short) end
""" + PUT_ON.removeprefix(ALLOW_OOM)

#: The same for what follows a delivery: only while that is its worker's own, and once
#: for all runs. KEYS as for PUT, then unacked hash, set of what was published for the
#: task; ARGV as for PUT, then the message's task, the delivery's tag.
PUT_ONCE = (
    ALLOW_OOM
    + """
if redis.call('HEXISTS', KEYS[#KEYS - 1], ARGV[#ARGV]) == 0 then return 0 end
if redis.call('SADD', KEYS[#KEYS], ARGV[#ARGV - 1]) == 0 then return 0 end
redis.call('EXPIRE', KEYS[#KEYS], 86400)
"""
    + PUT_ON.removeprefix(ALLOW_OOM)
)

#: Renews a lease. KEYS lease, set of workers, revoked tasks; ARGV report, milliseconds,
#: worker. Returns whether it still stood, the time, how many tasks are revoked.
RENEW = (
    ALLOW_OOM
    + """
local stood = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
local time = redis.call('TIME')
return {stood, time[1], time[2], redis.call('ZCARD', KEYS[3])}
"""
)

#: What a worker holds. KEYS set of workers, unacked hash; ARGV worker. It also writes,
#: which a demoted primary refuses: what that says may be out of date.
HELD = (
    ALLOW_OOM
    + """
redis.call('SADD', KEYS[1], ARGV[1])
return redis.call('HKEYS', KEYS[2])
"""
)

#: Sets a held message aside for good. KEYS unacked hash, dead letters; ARGV tag, task,
#: letter. Returns 1 if it was held. The caller acknowledges it afterwards.
BURY = (
    ALLOW_OOM
    + """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
"""
)

#: Puts a dead letter back into its list as if it were new. KEYS dead letters, list,
#: deadlines; ARGV task, message, bell, deadline ('' for none). Returns 1 if it was
#: there.
RAISE = (
    ALLOW_OOM
    + ARRIVED
    + """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1]) end
arrived(KEYS[2], redis.call('LPUSH', KEYS[2], ARGV[2]), ARGV[2])
redis.call('PUBLISH', ARGV[3], '1')
return 1
"""
)

#: Stores results, each unless its delivery is no longer the worker's or a final result
#: is there. KEYS unacked hash, totals, then the results' keys; ARGV for each result its
#: tag, value, seconds kept, 1 if its state is final, 1 to tell it by an empty notice.
#: An empty tag leaves the delivery unchecked (results on a server of their own cannot
#: see it). Returns for each: 1 stored, 0 not the worker's delivery, -1 answered before.
STORE = (
    ALLOW_OOM
    + """
local out = {}
local totals = {}
local function count(name)
  totals[name] = (totals[name] or 0) + 1
end
local function store(key, tag, value, seconds, final, by_notice)
  if tag ~= '' and redis.call('HEXISTS', KEYS[1], tag) == 0 then
    count('fenced')
    return 0
  end
  local head = redis.pcall('GETRANGE', key, 0, 24)
  if type(head) == 'table' then head = '' end
  if string.find(head, '"SUCCESS"', 1, true) or string.find(head, '"FAILURE"', 1, true)
      or string.find(head, '"REVOKED"', 1, true) then
    count('repeated')
    return -1
  end
  redis.call('SET', key, value, 'EX', seconds)
  redis.call('PUBLISH', key, by_notice == '1' and '' or value)
  if final == '1' then count('stored') end
  return 1
end
for i = 3, #KEYS do
  out[i - 2] = store(KEYS[i], unpack(ARGV, (i - 3) * 5 + 1, (i - 2) * 5))
end
for name, number in pairs(totals) do redis.call('HINCRBY', KEYS[2], name, number) end
return out
"""
)

#: Gives a held message back to the head of its list, changed to ARGV[2] if that is not
#: empty. KEYS unacked hash, list; ARGV tag, message, bell. Returns 1 if it was held.
GIVE_BACK = (
    ALLOW_OOM
    + ARRIVED
    + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local message = ARGV[2]
if message == '' then message = string.sub(held, #KEYS[2] + 2) end
redis.call('HDEL', KEYS[1], ARGV[1])
arrived(KEYS[2], redis.call('RPUSH', KEYS[2], message), message)
redis.call('PUBLISH', ARGV[3], '1')
return 1
"""
)

#: Sets a held message aside until it is due. KEYS unacked hash, delayed set; ARGV tag,
#: due time. The member keeps the number of its pull, so that of those due together the
#: first submitted comes first, then list and message. Returns 1 if it was held.
PARK = (
    ALLOW_OOM
    + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local number = tonumber(string.match(ARGV[1], '%d+$') or 0)
redis.call('ZADD', KEYS[2], ARGV[2], string.format('%016d\\n', number) .. held)
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
"""
)

#: Puts due messages into their lists as if they were submitted now, the first due
#: first. KEYS delayed set; ARGV most to move, most bytes to move. Returns how many
#: moved. The lists are named in the members: a cluster would need them in KEYS.
WAKE = (
    ALLOW_OOM
    + ARRIVED
    + """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local moved, bytes = 0, tonumber(ARGV[2])
while moved < tonumber(ARGV[1]) and bytes > 0 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 16)
  if #due == 0 then break end
  for _, member in ipairs(due) do
    local numbered = string.find(member, '^%d+\\n') == 1
    local kept = numbered and string.sub(member, 18) or member
    local cut = string.find(kept, '\\n', 1, true)
    local list = string.sub(kept, 1, cut - 1)
    local message = string.sub(kept, cut + 1)
    arrived(list, redis.call('LPUSH', list, message), message)
    redis.call('ZREM', KEYS[1], member)
    moved, bytes = moved + 1, bytes - #member
  end
end
return moved
"""
)

#: Forgets a dead worker that holds nothing more. KEYS lease, unacked hash, set of
#: workers; ARGV worker. Returns 1 if it was forgotten.
FORGET = (
    ALLOW_OOM
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('SREM', KEYS[3], ARGV[1])
return 1
"""
)

#: Takes over a dead worker's message, unless that worker lives again. KEYS its unacked
#: hash, one's own, lease, counter of deliveries, set of workers; ARGV tag, list and
#: message, start of the new tag, one's name. Returns the tag, '' if it was not moved.
ADOPT = (
    ALLOW_OOM
    + """
if redis.call('EXISTS', KEYS[3]) == 1 then return '' end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return '' end
local tag = ARGV[3] .. '-' .. redis.call('INCR', KEYS[4])
redis.call('HSET', KEYS[2], tag, ARGV[2])
redis.call('SADD', KEYS[5], ARGV[4])
return tag
"""
)

#: Gives a dead worker's message back, unless that worker lives again. KEYS unacked
#: hash, list, lease; ARGV tag, message, bell. Returns 1 if it was moved.
REAP = (
    ALLOW_OOM
    + ARRIVED
    + """
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
arrived(KEYS[2], redis.call('RPUSH', KEYS[2], ARGV[2]), ARGV[2])
redis.call('PUBLISH', ARGV[3], '1')
return 1
"""
)
