-- Shared by the scripts of the view; put in front of each.
-- KEYS of every script: 1 meta (hash), 2 rows (hash), 3 profiles (hash), 4 due (sorted set).

-- unpack() puts its results on Lua's C stack, which has room for 8,000.
local MOST = 6000

local function where()
  local found = redis.call('HMGET', KEYS[1], 'n', 'd', 'state')
  local state = found[3] or ((found[1] or found[2]) and 'torn' or 'none')
  return found[1] or '-1', found[2] or '-1', state
end

local function batched(command, key, list)
  for first = 1, #list, MOST do
    redis.call(command, key, unpack(list, first, math.min(first + MOST - 1, #list)))
  end
end

-- A list comes as two arguments, the sizes of its items (32 bits each, little-endian) and the items themselves: an
-- argument for each would cost the client more than the transaction does.
local function unpacked(at)
  local sizes, items = ARGV[at], ARGV[at + 1]
  local list, from = {}, 1
  for i = 1, #sizes / 4 do
    local upto = from + struct.unpack('<I4', sizes, 4 * i - 3)
    list[i] = items:sub(from, upto - 1)
    from = upto
  end
  if from ~= #items + 1 then error('the sizes of a list differ from its items') end
  return list
end

-- What to write, a list each: person row ..., person profile ..., person without profile ..., due person ...,
-- person without timer ...
local RUNS = {{'HSET', 2, 2}, {'HSET', 3, 2}, {'HDEL', 3, 1}, {'ZADD', 4, 2}, {'ZREM', 4, 1}}

-- Unpacked and checked before anything is written: a script that fails in the middle leaves its first half behind.
local function checked(at)
  if #ARGV ~= at + 2 * #RUNS - 1 then error('wrong number of arguments') end
  local lists = {}
  for i, run in ipairs(RUNS) do
    lists[i] = unpacked(at + 2 * i - 2)
    if #lists[i] % run[3] ~= 0 then error('run ' .. i .. ' has half a pair') end
  end
  for i = 1, #lists[4], 2 do
    if not tonumber(lists[4][i]) then error('a due time is no number') end
  end
  return lists
end

local function write(lists)
  for i, run in ipairs(RUNS) do
    batched(run[1], KEYS[run[2]], lists[i])
  end
end
