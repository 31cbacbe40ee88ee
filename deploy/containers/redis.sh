#!/usr/bin/env bash
# The Redis of podman-compose.yml. Two things that redis-server alone does not do:
# - Told to end, it waits until the services have left. `podman-compose down` stops all containers at once,
#   and a service that drains still has answers to write; an answer that Coze does not keep (a chat with
#   auto_save_history false) would be lost. REDIS_HOLD_SECONDS bounds it: what has not left by then was killed.
# - A snapshot that lies in the data directory as restore.rdb is put in the place of what is there (docs/en/backup.md).
# Its arguments are redis-server's. REDIS_PORT (6379), REDIS_DATA (/data).
set -euo pipefail
HOLD=${REDIS_HOLD_SECONDS:-40}
PORT=${REDIS_PORT:-6379}
DATA=${REDIS_DATA:-/data}
REDIS=""

cli() { redis-cli -h 127.0.0.1 -p "$PORT" "$@"; }
say() { printf '%s\n' "$*"; }

# Connections besides the one that asks. Nothing where Redis does not answer: then it holds nobody.
others() { cli client list 2>/dev/null | grep -c -v -e 'cmd=client' -e '^$' || true; }

leave() {
    trap '' TERM INT
    local until=$((SECONDS + HOLD)) alone=0
    # Five looks in a row, a second in all: a service may have lost its connections and be about to come back.
    while ((SECONDS < until && alone < 5)) && kill -0 "$REDIS" 2>/dev/null; do
        if [[ $(others) == 0 ]]; then alone=$((alone + 1)); else alone=0; fi
        sleep 0.2
    done
    if ((alone < 5)); then say "Somebody was still connected after $HOLD seconds: $(others) connections"; fi
    kill -TERM "$REDIS" 2>/dev/null || true
    wait "$REDIS" && exit 0
    exit $?
}

await() { # text, question of redis-cli: until its answer has the text
    local text=$1 left=3000
    shift
    until redis-cli -s "$DATA/restoring/socket" "$@" 2>/dev/null | grep -q "$text"; do
        if ((left-- == 0)) || ! kill -0 "$REDIS" 2>/dev/null; then
            say "ERROR: the snapshot $DATA/restore.rdb cannot be loaded (the lines above); remove it, or put a whole one there"
            exit 1
        fi
        sleep 0.2
    done
}

# A Redis that keeps an append-only file reads nothing else at its start, so one is made of the snapshot, by a
# Redis that nobody else can reach. What is there is not touched before that has succeeded; cut short, it is
# begun anew at the next start, since restore.rdb gets its other name at the very end.
restore() {
    [[ -f $DATA/restore.rdb ]] || return 0
    local stamp file work=$DATA/restoring
    stamp=$(date -u +%Y%m%dT%H%M%SZ)-$$
    say "Restoring $DATA/restore.rdb; what was there before is kept in $DATA/before-$stamp"
    rm -rf -- "$work"
    mkdir "$work"
    ln -s "$DATA/restore.rdb" "$work/dump.rdb" # which may be the root user's: podman cp
    redis-server --port 0 --unixsocket "$work/socket" --dir "$work" --save "" --appendonly no &
    REDIS=$!
    await PONG ping
    redis-cli -s "$work/socket" config set appendonly yes >/dev/null
    await 'aof_rewrite_scheduled:0' info persistence
    await 'aof_rewrite_in_progress:0' info persistence
    await 'aof_last_bgrewrite_status:ok' info persistence
    kill -TERM "$REDIS"
    wait "$REDIS"
    mkdir "$DATA/before-$stamp"
    for file in appendonlydir appendonly.aof dump.rdb; do
        if [[ -e $DATA/$file ]]; then mv "$DATA/$file" "$DATA/before-$stamp/"; fi
        if [[ $file != dump.rdb && -e $work/$file ]]; then mv "$work/$file" "$DATA/"; fi
    done
    mv "$DATA/restore.rdb" "$DATA/restored-$stamp.rdb"
    rm -rf -- "$work"
    say "Restored."
}

restore
redis-server --port "$PORT" --dir "$DATA" "$@" &
REDIS=$!
trap leave TERM INT
wait "$REDIS"
