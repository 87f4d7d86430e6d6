-- For wrk: the path of its URL with the queries ?n=1 to ?n=URLS in turn, by all connections together.
-- wrk -s urls.lua URL -- URLS

local requests = {}
local last = 0

function init(arguments)
  local path = wrk.path
  for n = 1, tonumber(arguments[1]) do
    requests[n] = wrk.format(nil, path .. "?n=" .. n)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end
