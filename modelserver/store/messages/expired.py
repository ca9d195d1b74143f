"""Takes messages out of queues that were answered at their deadline, unexecuted."""

from collections.abc import Iterable

from modelserver.store.scripts.atomic import ALLOW_OOM, MORE_ROWS
from modelserver.store.server.state import Store

#: Messages of each list that are looked at in one call, the oldest.
MOST_LOOKED_AT = 256

#: Takes out what nobody waits for any more: its deadline is over, and it is no longer
#: among the deadlines, so that it has its answer. KEYS main list, deadlines; ARGV now,
#: messages of each list to look at. Returns how many were taken out.
DROP = (
    ALLOW_OOM
    + MORE_ROWS
    + """
local main, total = KEYS[1], 0
local ring = main .. '\\6\\22ring'
local lists = redis.call('LRANGE', ring, 0, -1)
lists[#lists + 1] = main
local seen = {}
for _, list in ipairs(lists) do
  local taken, found = 0, {}
  if not seen[list] then found = redis.call('LRANGE', list, -ARGV[2], -1) end
  seen[list] = true
  for i = #found, 1, -1 do
    local fine, message = false, nil
    if more_rows(found[i]) == 0 then fine, message = pcall(cjson.decode, found[i]) end
    local headers = fine and type(message) == 'table' and message['headers']
    if type(headers) ~= 'table' then headers = {} end
    local due, task = tonumber(headers['deadline_at'] or ''), headers['id']
    if due and type(task) == 'string' and due < tonumber(ARGV[1])
        and not redis.call('ZSCORE', KEYS[2], task) then
      taken = taken + redis.call('LREM', list, -1, found[i])
    end
  end
  if taken > 0 and list ~= main then
    redis.call('DECRBY', main .. '\\6\\22aside', taken)
    if redis.call('EXISTS', list) == 0 then redis.call('LREM', ring, 0, list) end
  end
  total = total + taken
end
return total
"""
)


def drop_expired(store: Store, queues: Iterable[str]) -> int:
    """Take answered requests out of queues that nobody works at; returns how many.

    Where somebody does, workers drop them as they come to them.
    """
    total, now = 0, store.now()
    for queue in queues:
        for main in store.keys.queue(queue):
            keys = [main, store.keys.deadlines]
            total += int(store.run_script(DROP, keys, now, MOST_LOOKED_AT))
    return total
