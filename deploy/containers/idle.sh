#!/usr/bin/env bash
# What a development container does: wait. Told to end, it first ends the service that ./run-service.sh has
# started in it, so that running chats are handed over, and then Redis. Without Python and in one go, because
# podman kills what takes longer than its patience.
set -euo pipefail

# Ours by its command line, because a pid file of an earlier container may name a stranger. A process that
# has ended has none, also while tmux has not yet taken note of it.
runs() { # pid
    tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qE -- '-m app|redis-server'
}

end() { # part, twentieths of a second
    local pid="" left=$2
    read -r pid _ 2>/dev/null <"${COZE_RUN_DIR:-.run}/$1.pid" || true
    if [[ -z $pid ]] || ! runs "$pid" || ! kill -TERM "$pid" 2>/dev/null; then return 0; fi
    while runs "$pid" && ((left-- > 0)); do sleep 0.05; done
}

# Redis last: a service that drains still has answers to write.
leave() {
    trap '' TERM INT
    end service $((${DRAIN_SECONDS:-3} * 20 + 200))
    end redis 40
    exit 0
}
trap leave TERM INT

while true; do
    sleep 3600 &
    wait "$!" || true
done
