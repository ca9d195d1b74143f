"""The Lua scripts. Each is atomic on the server, so a killed process leaves no half."""

#: Puts a message into a queue's list and rings the bell if the list was empty.
#: KEYS list; ARGV message, bell. Returns the list's length.
PUT = """
local n = redis.call('LPUSH', KEYS[1], ARGV[1])
if n == 1 then redis.call('PUBLISH', ARGV[2], '1') end
return n
"""

#: Moves up to ARGV[1] messages from the lists KEYS[2..] (most urgent first) into the
#: worker's hash KEYS[1] and returns {tag, list, message, ...}. The tag is made here so
#: that a message delivered twice has two tags: that is what fences a late answer.
PULL = """
local room = tonumber(ARGV[1])
local out = {}
for i = 2, #KEYS do
  if room <= 0 then break end
  local got = redis.call('RPOP', KEYS[i], room)
  if got then
    for _, message in ipairs(got) do
      local tag = tostring(redis.call('HINCRBY', KEYS[1], 'next', 1))
      redis.call('HSET', KEYS[1], tag, KEYS[i] .. '\\n' .. message)
      out[#out + 1] = tag
      out[#out + 1] = KEYS[i]
      out[#out + 1] = message
      room = room - 1
    end
  end
end
return out
"""

#: Stores a final result unless this delivery is no longer the worker's or a final
#: result is there. KEYS unacked hash, result, totals; ARGV tag, value, seconds kept,
#: 1 if the state is final. An empty tag leaves the delivery unchecked (results on a
#: server of their own cannot see it). Returns 1 stored, 0 refused.
STORE = """
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  redis.call('HINCRBY', KEYS[3], 'fenced', 1)
  return 0
end
local head = redis.call('GETRANGE', KEYS[2], 0, 24)
if string.find(head, '"SUCCESS"', 1, true) or string.find(head, '"FAILURE"', 1, true)
    or string.find(head, '"REVOKED"', 1, true) then
  redis.call('HINCRBY', KEYS[3], 'repeated', 1)
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('PUBLISH', KEYS[2], ARGV[2])
if ARGV[4] == '1' then redis.call('HINCRBY', KEYS[3], 'stored', 1) end
return 1
"""

#: Gives a held message back to the head of its list, changed to ARGV[2] if that is not
#: empty. KEYS unacked hash, list; ARGV tag, message, bell. Returns 1 if it was held.
GIVE_BACK = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local message = ARGV[2]
if message == '' then message = string.sub(held, #KEYS[2] + 2) end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('RPUSH', KEYS[2], message)
redis.call('PUBLISH', ARGV[3], '1')
return 1
"""

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
WAKE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do
  local cut = string.find(member, '\\n', 1, true)
  redis.call('RPUSH', string.sub(member, 1, cut - 1), string.sub(member, cut + 1))
  redis.call('ZREM', KEYS[1], member)
end
return #due
"""

#: Records one request. KEYS samples, counters; ARGV packed sample, number kept, seconds
#: kept, outcome, prompt tokens, completion tokens.
RECORD = """
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[2]) - 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('HINCRBY', KEYS[2], ARGV[4], 1)
redis.call('HINCRBY', KEYS[2], 'prompt_tokens', ARGV[5])
redis.call('HINCRBY', KEYS[2], 'completion_tokens', ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
"""

#: Forgets a dead worker that holds nothing more. KEYS lease, unacked hash, set of
#: workers; ARGV worker. Returns 1 if it was forgotten.
FORGET = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local tag = redis.call('HEXISTS', KEYS[2], 'next')
if redis.call('HLEN', KEYS[2]) > tag then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
"""

#: Gives a dead worker's message back, unless that worker lives again. KEYS unacked
#: hash, list, lease; ARGV tag, message, bell. Returns 1 if it was moved.
REAP = """
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('PUBLISH', ARGV[3], '1')
return 1
"""

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

#: Writes wishes if the token is still the newest. KEYS token, desired, changed; ARGV
#: token, then pairs of engine and JSON ('' deletes). Returns 1 if written.
WISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('PUBLISH', KEYS[3], 'desired')
return 1
"""
