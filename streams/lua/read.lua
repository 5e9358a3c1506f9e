-- Rows and profiles of people at one step. ARGV: n, list of people
-- Returns {0, rows, profiles}, or {1, the step found} if the view is not whole at step n.
local n, _, state = where()
if state ~= '' or n ~= ARGV[1] then return {1, state == '' and n or '-1'} end
local people = unpacked(2)
return {
  0,
  redis.call('HMGET', KEYS[2], unpack(people)),
  redis.call('HMGET', KEYS[3], unpack(people)),
}
