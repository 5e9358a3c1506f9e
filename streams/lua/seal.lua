-- Declare a replayed view to be at a step. ARGV: d as replayed, n, d, offsets, partitions, at_ms
-- Returns {0}, or {1, the step found} if the view is not at d.
local n, d, state = where()
if d ~= ARGV[1] or (state ~= '' and state ~= 'replay') then return {1, n} end
redis.call('HSET', KEYS[1], 'n', ARGV[2], 'd', ARGV[3], 'offsets', ARGV[4], 'partitions', ARGV[5],
  'at_ms', ARGV[6], 'state', '')
return {0}
