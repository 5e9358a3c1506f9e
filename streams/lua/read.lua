-- Rows and profiles of people at one step. ARGV: n, person ...
-- Returns {0, rows, profiles}, or {1, the step found} if the view is not whole at step n.
local n, _, state = where()
if state ~= '' or n ~= ARGV[1] then return {1, state == '' and n or '-1'} end
return {
  0,
  redis.call('HMGET', KEYS[2], unpack(ARGV, 2)),
  redis.call('HMGET', KEYS[3], unpack(ARGV, 2)),
}
