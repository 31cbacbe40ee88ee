# shellcheck shell=bash
# shellcheck disable=SC2034  # run-service.sh reads what is set here
# The parts that run-service.sh starts and ends: redis, simulator, service, and the tmux session around
# them. Sourced after common.sh. A part is started by launch.py, which leaves .run/<part>.pid.

SESSION="coze-fastapi"
USE_TMUX=no
WAITER=""
STARTED=no # something was started by this run; a failure takes it down again

probe() { "$PY" "$ROOT/scripts/probe.py" "$@"; }
pid_of() { "$PY" "$ROOT/scripts/process.py" alive "$RUN_DIR/$1.pid"; }
port_owner() { probe owner "$1"; }

# ---------------------------------------------------------------- state: what the running parts were started with

# NAME=value lines, no secrets; read by the next call of this script, which may have other settings.
write_state() {
    {
        printf 'MODE=%s\nURL=%s\nHOST=%s\nPORT=%s\n' "$MODE" "$CFG_URL" "$CFG_HOST" "$CFG_PORT"
        printf 'PAGE_PORT=%s\nDRAIN=%s\nREDIS=%s\n' "$CFG_PAGE_PORT" "$CFG_DRAIN_SECONDS" "$CFG_REDIS_SHOWN"
        printf 'AUTH=%s\nSIMULATOR_PORT=%s\nTMUX=%s\n' "$CFG_AUTH" "$CFG_SIMULATOR_PORT" "$USE_TMUX"
    } >"$RUN_DIR/state"
}

read_state() {
    local name value
    STATE_MODE="" STATE_URL="" STATE_HOST="" STATE_PORT="" STATE_DRAIN=20 STATE_REDIS="" STATE_AUTH=""
    STATE_PAGE_PORT="" STATE_SIMULATOR_PORT="" STATE_TMUX=no
    [[ -f $RUN_DIR/state ]] || return 0
    while IFS='=' read -r name value; do
        case $name in
            MODE | URL | HOST | PORT | PAGE_PORT | DRAIN | REDIS | AUTH | SIMULATOR_PORT | TMUX)
                printf -v "STATE_$name" %s "$value"
                ;;
        esac
    done <"$RUN_DIR/state"
}

# ---------------------------------------------------------------- tmux

in_tmux() { command tmux "$@" 9>&-; }
session_exists() { command -v tmux >/dev/null 2>&1 && in_tmux has-session -t "=$SESSION" 2>/dev/null; }
session_is_ours() {
    session_exists && [[ $(in_tmux show-options -v -t "=$SESSION:" @coze_fastapi_root 2>/dev/null) == "$ROOT" ]]
}
inside_our_session() {
    [[ -n ${TMUX:-} ]] && session_is_ours && [[ $(in_tmux display-message -p '#S' 2>/dev/null) == "$SESSION" ]]
}

# The first pane follows the service's log and stays when all else ends.
open_session() {
    in_tmux new-session -d -s "$SESSION" -x 200 -y 50 -c "$ROOT" tail -n 100 -F "$RUN_DIR/service.log" \; \
        set-option -t "=$SESSION:" @coze_fastapi_root "$ROOT" \; \
        set-option -w -t "=$SESSION:" remain-on-exit on >>"$RUN_DIR/setup.log" 2>&1 || return 1
    name_pane "=$SESSION:" log
    in_tmux set-option -w -t "=$SESSION:" pane-border-status top >/dev/null 2>&1 || true
}

name_pane() { in_tmux select-pane -t "$1" -T "$2" >/dev/null 2>&1 || true; } # tmux < 2.6 has no titles

open_pane() { # title, program and arguments
    local title=$1 pane
    shift
    pane=$(in_tmux split-window -d -t "=$SESSION:" -c "$ROOT" -P -F '#{pane_id}' "$@") || return 1
    name_pane "$pane" "$title"
    in_tmux select-layout -t "=$SESSION:" tiled >/dev/null 2>&1 || true
}

note_pane() { # title, text: a pane for a part that is not ours to run
    [[ $USE_TMUX == no ]] || open_pane "$1" printf '%s\n' "$2" || true
}

# ---------------------------------------------------------------- starting

new_logs() { # those of the last start are kept as .1, and so on: as many as rotating_log.py keeps
    local part log number
    for part in redis simulator service; do
        log="$RUN_DIR/$part.log"
        if [[ -s $log ]]; then
            for number in 4 3 2 1; do
                if [[ -e $log.$number ]]; then mv -f "$log.$number" "$log.$((number + 1))"; fi
            done
            mv -f "$log" "$log.1"
        fi
        : >"$log"
        chmod 600 "$log"
    done
}

launch() { # part, program and arguments; in the environment of this shell
    local part=$1 wait=50
    shift
    rm -f "$RUN_DIR/$part.pid"
    STARTED=yes
    local run=("$PY" "$ROOT/scripts/launch.py")
    if [[ $USE_TMUX == no ]]; then
        "${run[@]}" detach --pid "$RUN_DIR/$part.pid" --log "$RUN_DIR/$part.log" \
            --rotate-mb "$CFG_LOG_ROTATION_MB" -- "$@"
    else
        "${run[@]}" save-env "$RUN_DIR/$part.env"
        open_pane "$part" "${run[@]}" pane --env "$RUN_DIR/$part.env" \
            --pid "$RUN_DIR/$part.pid" --log "$RUN_DIR/$part.log" --rotate-mb "$CFG_LOG_ROTATION_MB" -- "$@" ||
            die "tmux could not open a pane for the $part" "Try: ./run-service.sh $MODE --no-tmux"
    fi
    while [[ ! -f $RUN_DIR/$part.pid ]] && ((wait-- > 0)); do sleep 0.1; done
    rm -f "$RUN_DIR/$part.env"
}

await() { # part, question, argument, seconds: or the reason, the log's end, and out
    # In the background, because a trap has to wait for a program in the foreground, but not for `wait`.
    probe wait "$2" "$3" "$4" "$RUN_DIR/$1.pid" >"$RUN_DIR/reason" 9>&- &
    WAITER=$!
    if wait "$WAITER"; then return 0; fi
    local reason
    reason=$(<"$RUN_DIR/reason")
    show_log_end "$RUN_DIR/$1.log" 30
    die "the $1 did not start: $reason" "Its whole log: .run/$1.log"
}

start_redis() {
    local answer code=0
    if [[ $CFG_REDIS_KIND == memory ]]; then
        use_memory "REDIS_URL=memory://"
        return
    fi
    answer=$(probe redis REDIS_URL) || code=$? # by its name: it may hold a password
    case $code:$CFG_REDIS_KIND in
        0:*)
            say "Redis: $CFG_REDIS_SHOWN answers; using it"
            note_pane redis "Redis at $CFG_REDIS_SHOWN was there already and is not ours to run."
            ;;
        1:local) start_own_redis ;;
        2:local)
            die "something that cannot be used as Redis listens on $CFG_REDIS_SHOWN: $answer" \
                "$(port_owner "$CFG_REDIS_PORT")" \
                "End it yourself, or set REDIS_URL to another port or server."
            ;;
        *)
            die "the Redis at $CFG_REDIS_SHOWN (REDIS_URL from: $CFG_REDIS_URL_FROM) cannot be used: $answer" \
                "Only one without a password on this machine is started from here." \
                "Start it, or correct REDIS_URL. 请启动该 Redis，或修改 REDIS_URL。"
            ;;
    esac
}

# XADD NOMKSTREAM, without which an event log could come back from the dead, came with 6.2.
redis_program_is_usable() {
    local version
    command -v redis-server >/dev/null 2>&1 || return 1
    version=$(redis-server --version 2>/dev/null | sed -n 's/.*[ =]v=\([0-9]*\.[0-9]*\).*/\1/p')
    [[ -n $version ]] && ((${version%%.*} * 100 + ${version#*.} >= 602)) && return 0
    warn "$(command -v redis-server) is version ${version:-unknown}; 6.2 or newer is needed, so it is not used"
    return 1
}

start_own_redis() {
    local keep=no data="$RUN_DIR/redis-test"
    if ! redis_program_is_usable; then
        use_memory "no Redis answers at $CFG_REDIS_SHOWN and no usable redis-server is installed"
        return
    fi
    if [[ $MODE == deployment ]]; then keep=yes data="$RUN_DIR/redis"; fi
    mkdir -p "$data"
    say "Redis: starting redis-server on port $CFG_REDIS_PORT (kept on disk: $keep)"
    launch redis redis-server --port "$CFG_REDIS_PORT" --bind "$CFG_REDIS_BIND" --dir "$data" \
        --save "" --appendonly "$keep" --daemonize no
    await redis redis REDIS_URL 20
}

use_memory() { # why
    if [[ $MODE == deployment ]]; then
        die "deployment mode needs a Redis: $1" \
            "Install redis-server (6.2 or newer), or set REDIS_URL=redis://host:6379/0 in .env." \
            "部署模式必须使用 Redis：请安装 redis-server，或在 .env 中设置 REDIS_URL。"
    fi
    if ((CFG_WORKERS > 1)); then
        die "WORKERS=$CFG_WORKERS needs a Redis: $1" \
            "memory:// lives inside one process. Set WORKERS=1, or install redis-server."
    fi
    warn "$1"
    warn "USING memory:// : everything lives inside the service's process and is LOST when it ends."
    warn "正在使用内存存储，服务停止后会话与结果全部丢失，仅供试用。"
    export REDIS_URL=memory://
    CFG_REDIS_SHOWN=memory://
}

start_simulator() {
    local code=0
    probe coze "$CFG_SIMULATOR_PORT" >/dev/null || code=$?
    case $code in
        0)
            say "Simulator: a Coze answers on port $CFG_SIMULATOR_PORT; using it"
            note_pane simulator "The Coze on port $CFG_SIMULATOR_PORT was there already and is not ours to run."
            return
            ;;
        2)
            die "port $CFG_SIMULATOR_PORT is taken by something that is not a Coze: $(port_owner "$CFG_SIMULATOR_PORT")" \
                "End it yourself, or choose another port: SIMULATOR_PORT=5001 ./run-service.sh test"
            ;;
    esac
    say "Simulator: starting on port $CFG_SIMULATOR_PORT"
    launch simulator "$PY" -m coze_simulator --port "$CFG_SIMULATOR_PORT"
    await simulator coze "$CFG_SIMULATOR_PORT" 30
}

start_service() {
    local program=("$PY" -m app)
    if [[ $MODE == test && $CFG_PAGE_PORT != "$CFG_PORT" ]]; then program+=(--page-port "$CFG_PAGE_PORT"); fi
    say "Service: starting on $CFG_HOST:$CFG_PORT"
    launch service "${program[@]}"
    await service health "$CFG_URL" "${START_TIMEOUT:-60}"
}

# ---------------------------------------------------------------- ending

end_part() { # part, seconds
    local code=0
    [[ -f $RUN_DIR/$1.pid ]] || return 0
    "$PY" "$ROOT/scripts/process.py" end "$RUN_DIR/$1.pid" "$2" "$ROOT" || code=$?
    case $code in
        0) say "$1: ended" ;;
        3) : ;;
        4) warn "$1 did not end within $2 seconds and was killed" ;;
        *) die "$1 could not be ended (pid file: .run/$1.pid)" "End that process yourself." ;;
    esac
    rm -f "$RUN_DIR/$1.pid"
    [[ $code == 3 ]] || ENDED+=("$1")
}

# Everything of ours, the service first: it still needs the others while it finishes.
end_all() {
    ENDED=()
    read_state
    end_part service "$((STATE_DRAIN + 10))"
    end_part simulator 10
    end_part redis 20
    if session_is_ours; then
        ENDED+=("tmux session $SESSION")
        in_tmux kill-session -t "=$SESSION" 2>/dev/null || true
    fi
    rm -f "$RUN_DIR/state"
}

check_ports_free() { # the ports of the parts that were ended
    local part port left=0
    for part in "${ENDED[@]:-}"; do
        case $part in
            service) port=$STATE_PORT ;;
            simulator) port=$STATE_SIMULATOR_PORT ;;
            redis) port=${STATE_REDIS##*:} port=${port%%/*} ;;
            *) continue ;;
        esac
        [[ -z $port ]] || probe bindable 127.0.0.1 "$port" >/dev/null && continue
        warn "port $port is in use, now that the $part has ended, by $(port_owner "$port")"
        left=1
    done
    return "$left"
}
