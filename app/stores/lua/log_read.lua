local entries, size, from, more = {}, 0, start, true
while more do
  -- A few at a time: a log of megabytes is not read here to see that it is long.
  local found = redis.call('XRANGE', log, from, '+', 'COUNT', 10)
  for _, entry in ipairs(found) do
    for _, part in ipairs(entry[2]) do size = size + #part end
    if small > 0 and size > small then return {{}, 1} end
    if size > PAGE and #entries > 0 then return {entries, 0} end
    entries[#entries + 1] = entry
    from = '(' .. entry[1]
  end
  more = #found == 10 and #entries < most
end
return {entries, 0}
