local found, members = not_filed(labelled, limit), {}
for i = 1, #found, 2 do members[#members + 1] = found[i] end
return members
