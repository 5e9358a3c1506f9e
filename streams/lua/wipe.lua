-- Empty the view. ARGV: n, d and state as they were seen, d from which it will be filled
-- Returns {0}, or {1, the step found} if somebody else has changed it since.
local n, d, state = where()
if n ~= ARGV[1] or d ~= ARGV[2] or state ~= ARGV[3] then return {1, n} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'n', '-1', 'd', ARGV[4], 'state', 'replay')
return {0}
