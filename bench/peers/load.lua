-- wrk --script load.lua URL -- BYTES TOKEN
-- BYTES of body, which make it a POST; none with 0. With a TOKEN, "-" for none, one request in a hundred is traced.
local requests, sent = {}, 0

function init(arguments)
  local bytes, token = tonumber(arguments[1]), arguments[2]
  if bytes > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", bytes)
    wrk.headers["Content-Type"] = "application/octet-stream"
  end
  if token ~= "-" then
    wrk.headers["Authorization"] = "Bearer " .. token
    for _, flags in ipairs({ "00", "01" }) do
      wrk.headers["Traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-" .. flags
      requests[#requests + 1] = wrk.format()
    end
  else
    requests = { wrk.format(), wrk.format() }
  end
end

function request()
  sent = sent + 1
  return requests[sent % 100 == 0 and 2 or 1]
end
