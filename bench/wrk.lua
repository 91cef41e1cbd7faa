-- Arguments: method, size of a new random body (0: none), file with the paths to take in turn.
local body, paths, fixed, count = nil, {}, nil, 0

function init(arguments)
  wrk.method = arguments[1]
  for line in io.lines(arguments[3]) do paths[#paths + 1] = line end
  local body_bytes = tonumber(arguments[2])
  if body_bytes == 0 then
    fixed = wrk.format(nil, paths[1])
    return
  end
  local random = io.open("/dev/urandom", "rb")
  body = random:read(body_bytes - 16)
  random:close()
end

function request()
  if fixed then return fixed end
  count = count + 1
  return wrk.format(nil, paths[count % #paths + 1], nil, string.format("%016d", count) .. body)
end

function done(summary, _, _)
  local errors = summary.errors
  io.write(string.format("FIGURES %d %d %d %d\n", summary.requests, summary.bytes, summary.duration,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
