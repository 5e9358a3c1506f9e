-- Advance the view by one step. ARGV: n before, d before, n after, d after, offsets, partitions, at_ms, runs
-- Returns {0}, also if that very step is there already (d names it: no two committed steps share it);
-- {1, the step found} if the view is anywhere else.
local n, d, state = where()
if state == '' and n == ARGV[3] and d == ARGV[4] then return {0} end
if state ~= '' or n ~= ARGV[1] or d ~= ARGV[2] then return {1, state == '' and n or '-1'} end
local lists = checked(8)
redis.call('HSET', KEYS[1], 'state', 'torn')
write(lists)
redis.call('HSET', KEYS[1], 'n', ARGV[3], 'd', ARGV[4], 'offsets', ARGV[5], 'partitions', ARGV[6],
  'at_ms', ARGV[7], 'state', '')
return {0}
