-- Add a chunk of the changelog to a view that contains everything up to d. ARGV: d, d after, at_ms, runs
-- Returns {0}, or {1, the step found} if the view is not at d, as when another owner replays it too.
local n, d, state = where()
if d ~= ARGV[1] or (state ~= '' and state ~= 'replay') then return {1, n} end
local lists = checked(4)
redis.call('HSET', KEYS[1], 'state', 'torn')
write(lists)
redis.call('HSET', KEYS[1], 'd', ARGV[2], 'at_ms', ARGV[3], 'state', 'replay')
return {0}
