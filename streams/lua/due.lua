-- A page of the timers at one step. ARGV: n, first rank, last rank
-- Returns {0, {person, due, ...}}, or {1, the step found}.
local n, _, state = where()
if state ~= '' or n ~= ARGV[1] then return {1, state == '' and n or '-1'} end
return {0, redis.call('ZRANGE', KEYS[4], ARGV[2], ARGV[3], 'WITHSCORES')}
