"""The Lua scripts that look into queues and take out of them.

Room is counted in rows: a message is one, a bundle as many as it says first.
"""

from modelserver.store.scripts.atomic import ALLOW_OOM, MORE_ROWS

#: Rows in the main lists KEYS and in the side lists beside them; none in what is no
#: list. A message is one row, a bundle as many as it carries.
DEPTH = """
local total = 0
for _, main in ipairs(KEYS) do
  local length = redis.pcall('LLEN', main)
  if type(length) == 'number' then total = total + length end
  local aside = tonumber(redis.call('GET', main .. '\\6\\22aside') or 0)
  local rows = tonumber(redis.call('GET', main .. '\\6\\22rows') or 0)
  total = total + math.max(0, aside) + math.max(0, rows)
end
return total
"""

#: The messages in the main lists KEYS and in up to ARGV[1] lists beside each of them:
#: {submitter, messages, ...}.
BY_SUBMITTER = """
local found = {}
local function count(list, submitter)
  local length = redis.pcall('LLEN', list)
  if type(length) == 'number' and length > 0 then
    found[#found + 1] = submitter
    found[#found + 1] = length
  end
end
for _, main in ipairs(KEYS) do
  local from = main .. '\\6\\22from:'
  count(main, redis.call('GET', main .. '\\6\\22owner') or '')
  local ring = redis.call('LRANGE', main .. '\\6\\22ring', 0, ARGV[1] - 1)
  for _, list in ipairs(ring) do
    if list ~= main then count(list, string.sub(list, #from + 1)) end
  end
end
return found
"""

#: The header SENT of the messages that come next, one of each of the main lists KEYS
#: and of up to ARGV[1] lists beside each: the longest waiting of all are among them.
NEXT_SENT = """
local found = {}
local function look(list)
  local message = redis.pcall('LINDEX', list, -1)
  if type(message) ~= 'string' then return end
  local _, last = string.find(message, '"sent_at":', 1, true)
  found[#found + 1] = last and string.match(message, '^%s*([%d.]+)', last + 1)
end
for _, main in ipairs(KEYS) do
  look(main)
  for _, list in ipairs(redis.call('LRANGE', main .. '\\6\\22ring', 0, ARGV[1] - 1)) do
    if list ~= main then look(list) end
  end
end
return found
"""

#: Deletes the main lists KEYS and up to ARGV[1] of the side lists beside them; returns
#: how many rows there were, and 1 if there are more lists.
PURGE = """
local total, left = 0, tonumber(ARGV[1])
for _, main in ipairs(KEYS) do
  local ring, aside = main .. '\\6\\22ring', main .. '\\6\\22aside'
  total = total + redis.call('LLEN', main)
  redis.call('UNLINK', main)
  while left > 0 do
    local list = redis.call('LPOP', ring)
    if not list then break end
    left = left - 1
    local number = redis.call('LLEN', list)
    if list ~= main then redis.call('DECRBY', aside, number) end
    redis.call('UNLINK', list)
    total = total + number
  end
  if redis.call('EXISTS', ring) == 1 then
    redis.call('DEL', main .. '\\6\\22in-ring')
    return {total, 1}
  end
  total = total + math.max(0, redis.call('GET', main .. '\\6\\22rows') or 0)
  redis.call('DEL', aside, main .. '\\6\\22in-ring', main .. '\\6\\22rows')
end
return {total, 0}
"""

#: Moves up to ARGV[1] rows, and about ARGV[3] bytes, from the main lists KEYS[4..]
#: (most urgent first) and the lists beside them, in equal shares, into the hash KEYS[1]
#: of worker ARGV[4], which joins the set KEYS[3]. Returns {tag, list, message, ...}.
#: A bundle is taken whole where there is room for one row of it; a list that took more
#: than its share by one owes that, and takes less at its next turns.
#: Of the rows ARGV[5] are not for the last list, which is filler.
#: What the worker has passed on of late stays at the head of its list: messages that
#: begin with "left_by", a time and who passed them on, each name between bars. Of 64 of
#: a list, or ARGV[3] bytes, this is so; what is behind them is taken.
#: Tags have the worker's number of the pull ARGV[2] and the counter KEYS[2], which may
#: go back in a failover: each delivery has its own, which fences a late answer.
PULL = (
    ALLOW_OOM
    + MORE_ROWS
    + """
local room, bytes = tonumber(ARGV[1]), tonumber(ARGV[3])
local out, beyond = {}, 0
local function hold(list, message)
  local tag = ARGV[2] .. '-' .. redis.call('INCR', KEYS[2])
  redis.call('HSET', KEYS[1], tag, list .. '\\n' .. message)
  out[#out + 1] = tag
  out[#out + 1] = list
  out[#out + 1] = message
  local more = more_rows(message)
  beyond = beyond + more
  room, bytes = room - 1 - more, bytes - #message
  return 1 + more
end
local now
local function is_for_others(message)
  if not string.find(string.sub(message, 1, 32), '"left_by":"', 1, true) then
    return false
  end
  local till, names = string.match(message, '"left_by":"([%d.]+)([^"]*)')
  if not till or not string.find(names, '|' .. ARGV[4] .. '|', 1, true) then
    return false
  end
  now = now or tonumber(redis.call('TIME')[1])
  return now < tonumber(till)
end
-- In small portions: a list of large messages must not be copied as a whole.
local function take(list, most)
  local portion, left, spared = 1, {}, 0
  while most > 0 and room > 0 do
    local got = redis.call('RPOP', list, math.min(portion, most)) or {}
    if #got == 0 then break end
    for i, message in ipairs(got) do
      if i > 1 and (bytes <= 0 or most <= 0) then
        for back = #got, i, -1 do redis.call('RPUSH', list, got[back]) end
        break
      end
      if #left < 64 and spared < tonumber(ARGV[3]) and is_for_others(message) then
        left[#left + 1] = message
        spared = spared + #message
      else
        most = most - hold(list, message)
      end
    end
    if bytes <= 0 then room = 0 end
    portion = math.min(2 * portion, 16)
  end
  for back = #left, 1, -1 do redis.call('RPUSH', list, left[back]) end
end
for i = 4, #KEYS do
  if i == #KEYS then room = room - tonumber(ARGV[5]) end
  if room <= 0 then break end
  local main = KEYS[i]
  local ring, inside = main .. '\\6\\22ring', main .. '\\6\\22in-ring'
  local debts = main .. '\\6\\22debts'
  beyond = 0
  local lists = redis.call('LLEN', ring)
  local ringed = lists > 0
  if not ringed then
    take(main, room)
  elseif redis.call('EXISTS', inside) == 0 and redis.call('EXISTS', main) == 1 then
    -- A producer that keeps no ring has filled it: its turn comes at once.
    redis.call('LPUSH', ring, main)
    redis.call('SET', inside, 1)
    lists = lists + 1
  end
  local aside, owing = 0, lists > 0 and redis.call('EXISTS', debts) == 1
  while lists > 0 and room > 0 do
    local share, taken = math.max(1, math.floor(room / lists)), room
    for _ = 1, lists do
      if room <= 0 then break end
      local list, before, had = redis.call('LPOP', ring), #out, room
      local owed = owing and tonumber(redis.call('HGET', debts, list) or 0) or 0
      if owed < share then take(list, math.min(share - owed, room)) end
      owed = owed + math.max(0, had - room) - share
      if owed > 0 then
        redis.call('HSET', debts, list, owed)
        owing = true
      elseif owing then
        redis.call('HDEL', debts, list)
      end
      if list ~= main then aside = aside + (#out - before) / 3 end
      -- An emptied main list keeps its place: what fills it has had its turn.
      if list == main and #out > before or redis.call('EXISTS', list) == 1 then
        redis.call('RPUSH', ring, list)
      elseif list == main then
        redis.call('DEL', inside)
      end
    end
    lists = redis.call('LLEN', ring)
    if owing and room == taken then
      -- All that have something owe: nobody waits until it is paid.
      redis.call('DEL', debts)
      owing = false
    elseif room == taken then
      break  -- All that is left is for others.
    end
  end
  if lists == 1 and redis.call('LINDEX', ring, 0) == main then
    redis.call('DEL', ring, debts)
    lists = 0
  end
  if ringed and lists == 0 then
    redis.call('DEL', main .. '\\6\\22aside', inside, debts)
  elseif aside > 0 then
    redis.call('DECRBY', main .. '\\6\\22aside', aside)
  end
  if beyond > 0 then
    local rows = main .. '\\6\\22rows'
    if redis.call('DECRBY', rows, beyond) <= 0 then redis.call('DEL', rows) end
  end
end
if #out > 0 then redis.call('SADD', KEYS[3], ARGV[4]) end
return out
"""
)
