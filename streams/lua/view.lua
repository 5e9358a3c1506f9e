-- Shared by the scripts of the view; put in front of each.
-- KEYS of every script: 1 meta (hash), 2 rows (hash), 3 profiles (hash), 4 due (sorted set).

-- unpack() puts its results on Lua's C stack, which has room for 8,000.
local MOST = 6000

local function where()
  local found = redis.call('HMGET', KEYS[1], 'n', 'd', 'state')
  local state = found[3] or ((found[1] or found[2]) and 'torn' or 'none')
  return found[1] or '-1', found[2] or '-1', state
end

local function batched(command, key, first, last)
  while first <= last do
    local upto = math.min(first + MOST - 1, last)
    redis.call(command, key, unpack(ARGV, first, upto))
    first = upto + 1
  end
end

-- From ARGV[at]: five runs, each its number of arguments and then those:
-- person row ..., person profile ..., person without profile ..., due person ..., person without timer ...
local RUNS = {{'HSET', 2}, {'HSET', 3}, {'HDEL', 3}, {'ZADD', 4}, {'ZREM', 4}}

-- Checked before anything is written: a script that fails in the middle leaves its first half behind.
local function check(at)
  for run = 1, #RUNS do
    local size = tonumber(ARGV[at])
    if not size or size < 0 or (RUNS[run][1] ~= 'HDEL' and RUNS[run][1] ~= 'ZREM' and size % 2 == 1) then
      return error('run ' .. run .. ' has no valid size')
    end
    if RUNS[run][1] == 'ZADD' then
      for i = at + 1, at + size, 2 do
        if not tonumber(ARGV[i]) then return error('a due time is no number') end
      end
    end
    at = at + size + 1
  end
  if at ~= #ARGV + 1 then return error('sizes and arguments differ') end
end

local function write(at)
  for run = 1, #RUNS do
    local size = tonumber(ARGV[at])
    batched(RUNS[run][1], KEYS[RUNS[run][2]], at + 1, at + size)
    at = at + size + 1
  end
end
