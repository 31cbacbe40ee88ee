#!/usr/bin/env bash
# Starts and ends the service with all that it needs. See usage below, and docs/en/operation.md.
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/common.sh
source "$ROOT/scripts/common.sh"
# shellcheck source=scripts/setup.sh
source "$ROOT/scripts/setup.sh"
# shellcheck source=scripts/parts.sh
source "$ROOT/scripts/parts.sh"

MODE=""
WANT_TMUX=""

usage() {
    cat <<'TEXT'
Usage: ./run-service.sh test|deployment|check|stop|status|restart [--no-tmux] [--live [--yes]]

  test         with a local Coze simulator, no login, no .env needed
  deployment   against Coze; needs COZE_API_TOKEN, COZE_BOT_ID and a Redis
  check        looks at .env, Redis, Coze, token, bot, auth service and clock, one line each with its fix;
               starts nothing (exit status 0: fine, 1: warnings, 2: failures)
  check --live asks the configured Coze itself what the service rests on, above all whether a chat goes on when
               its connection drops; costs about 2,000 tokens and asks first (--yes: does not). Exit status 0
               where no answer is lost
  status       what runs (exit status 0: healthy, 1: running but not healthy, 3: not running)
  stop         ends what was started from here, and nothing else
  restart      stop, then start in the mode of the last start (or: restart test, restart deployment)
  --no-tmux    background processes even if tmux is installed

Settings, from the environment, else .env: HOST (0.0.0.0; with test 127.0.0.1), PORT (6000), WORKERS (1),
REDIS_URL (redis://localhost:6379/0), SIMULATOR_PORT (5000). Logs and pid files are under .run/.
Browsers refuse some ports, 6000 among them: test then listens on the next free one, too, for its pages.
TEXT
}

parse_arguments() {
    ACTION="" CHECK_OPTIONS=()
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help) usage && exit 0 ;;
            --no-tmux) WANT_TMUX=no ;;
            --live | --yes) CHECK_OPTIONS+=("$argument") ;;
            test | deployment)
                [[ -z $MODE ]] || bad_usage "two modes given"
                MODE=$argument
                ;;
            check | stop | status | restart)
                [[ -z $ACTION ]] || bad_usage "two commands given"
                ACTION=$argument
                ;;
            *) bad_usage "unknown argument: $argument" ;;
        esac
    done
    [[ -n $ACTION$MODE ]] || bad_usage "no command given"
    [[ -z $MODE || $ACTION == "" || $ACTION == restart ]] || bad_usage "$ACTION takes no mode"
    [[ ${#CHECK_OPTIONS[@]} == 0 || $ACTION == check ]] || bad_usage "${CHECK_OPTIONS[0]} belongs to check"
    ACTION=${ACTION:-start}
}

bad_usage() {
    printf 'ERROR: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

# ---------------------------------------------------------------- settings

# The simulator's values go before whatever .env says: test mode must never call the real Coze.
export_test_settings() {
    local port=$1
    export APP_MODE=local COZE_API_TOKEN=pat_simulator COZE_AUTHORIZATION="" COZE_API_TOKEN_FILE=""
    export COZE_API_TOKENS="" COZE_OAUTH_APP_ID="" COZE_OAUTH_KEY_ID="" COZE_OAUTH_PRIVATE_KEY_FILE=""
    export COZE_BOT_ID=7380000000000000009
    export COZE_API_URL="http://127.0.0.1:$port/coze/v3/chat" COZE_BASE_URL="http://127.0.0.1:$port/coze"
    export ENABLE_AUTH=${ENABLE_AUTH:-false} COZE_LOG_FORMAT=${COZE_LOG_FORMAT:-console}
    export ENABLE_PLAYGROUND=${ENABLE_PLAYGROUND:-true}
    if [[ -n ${http_proxy:-}${HTTP_PROXY:-}${all_proxy:-}${ALL_PROXY:-} ]]; then
        export NO_PROXY="127.0.0.1,localhost${NO_PROXY:+,$NO_PROXY}" no_proxy="127.0.0.1,localhost${no_proxy:+,$no_proxy}"
    fi
}

load_settings() {
    local name value text
    recall_settings
    if [[ $MODE == test ]]; then export_test_settings 0; fi
    text=$("$PY" "$ROOT/scripts/settings.py" "$ROOT") || wrong_settings $?
    while IFS='=' read -r name value; do printf -v "CFG_$name" %s "$value"; done <<<"$text"
    if [[ $MODE == test ]]; then
        export_test_settings "$CFG_SIMULATOR_PORT"
        # Without authentication it is for this machine alone; a container's environment says otherwise.
        if [[ $CFG_HOST_FROM == default ]]; then CFG_HOST=127.0.0.1; fi
    fi
    if [[ $MODE == deployment ]]; then require_credentials; fi
    export HOST=$CFG_HOST PORT=$CFG_PORT WORKERS=$CFG_WORKERS REDIS_URL=$CFG_REDIS_URL PYTHONUNBUFFERED=1
}

# 78 is EX_CONFIG: the line above says which setting it is.
wrong_settings() { # exit status
    printf 'ERROR: %s\n       %s\n' "a setting cannot be used (the line above)" \
        "Correct it in the environment or in .env." >&2
    exit "$1"
}

require_credentials() {
    local lacking=()
    [[ -n $CFG_HAS_TOKEN ]] || lacking+=("COZE_API_TOKEN")
    [[ -n $CFG_HAS_BOT ]] || lacking+=("COZE_BOT_ID")
    [[ ${#lacking[@]} == 0 ]] || die "deployment mode needs ${lacking[*]}" \
        "Write the line(s) into .env, for example: cp .env.example .env, then edit it." \
        "请在 .env 中设置：${lacking[*]}（在扣子平台获取）。没有账号可先试用：./run-service.sh test"
    [[ $CFG_REDIS_KIND != memory ]] || use_memory "REDIS_URL is memory://"
    if [[ $CFG_APP_MODE == local ]]; then warn "APP_MODE=local: the Coze that is called is a local one"; fi
}

# What was set in the environment at the last start holds for a restart without it, passwords excepted.
recall_settings() {
    local name value
    [[ $ACTION == restart && -f $RUN_DIR/last ]] || return 0
    while IFS='=' read -r name value; do
        case $name in
            HOST | PORT | WORKERS | SIMULATOR_PORT | REDIS_URL | CORS_ALLOW_ORIGINS)
                if [[ -n ${!name:-} ]]; then continue; fi
                [[ $value != secret ]] || die "the last start had a REDIS_URL with a password in its environment" \
                    "Give it again (REDIS_URL=... ./run-service.sh restart), or write it into .env."
                export "$name=$value"
                ;;
        esac
    done <"$RUN_DIR/last"
}

remember_settings() {
    local name from
    printf '%s\n' "$MODE" >"$RUN_DIR/mode"
    printf '%s\n' "${WANT_TMUX:-yes}" >>"$RUN_DIR/mode"
    : >"$RUN_DIR/last"
    for name in HOST PORT WORKERS SIMULATOR_PORT REDIS_URL; do
        from="CFG_${name}_FROM" value="CFG_$name"
        [[ ${!from} == environment ]] || continue
        if [[ $name == REDIS_URL && ${!value} == *@* ]]; then value=secret; else value=${!value}; fi
        printf '%s=%s\n' "$name" "$value" >>"$RUN_DIR/last"
    done
    if [[ -n ${CORS_ALLOW_ORIGINS:-} ]]; then
        printf '%s=%s\n' CORS_ALLOW_ORIGINS "${CORS_ALLOW_ORIGINS//$'\n'/}" >>"$RUN_DIR/last"
    fi
}

# ---------------------------------------------------------------- start

start() {
    take_lock service 150 || die "another run-service.sh is at work in this checkout" "Wait for it, or end it."
    read_state
    if pid_of service >/dev/null; then
        already_running
        return
    fi
    end_all # what a start that was cut short, or a part that died, has left
    choose_tmux
    check_port
    CFG_PAGE_PORT=$(next_port "$CFG_PORT")
    trap 'code=$?; trap - EXIT; abandon "$code"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    write_state # before the first process, so that a stop finds everything
    new_logs
    if [[ $USE_TMUX == yes ]] && ! open_session; then
        warn "tmux is installed but does not work here (see .run/setup.log); using background processes"
        USE_TMUX=no
    fi
    STARTED=yes
    start_redis
    if [[ $MODE == test ]]; then start_simulator; fi
    start_service
    write_state
    remember_settings
    trap - EXIT INT TERM HUP
    print_addresses
}

# Browsers refuse some ports, 6000 among them: in test mode the service listens on this one for them, too.
next_port() { # the first to look at
    probe page "$CFG_HOST" "$1" || printf '%s\n' "$CFG_PORT"
}

already_running() {
    local reason
    [[ $STATE_MODE == "$MODE" ]] || die "the service already runs from here in $STATE_MODE mode, on $STATE_URL" \
        "To change the mode: ./run-service.sh restart $MODE"
    CFG_PAGE_PORT=${STATE_PAGE_PORT:-$STATE_PORT}
    [[ $CFG_PORT_FROM != environment || $CFG_PORT == "$STATE_PORT" || $MODE:$CFG_PORT == "test:$CFG_PAGE_PORT" ]] ||
        die "the service already runs from here on port $STATE_PORT, not $CFG_PORT (for a browser: $(page_url "$STATE_URL"))" \
            "To move it: PORT=$CFG_PORT ./run-service.sh restart"
    if ! reason=$(probe wait health "$STATE_URL" 15 "$RUN_DIR/service.pid"); then
        show_log_end "$RUN_DIR/service.log"
        die "the service runs (pid $(pid_of service)) but is not healthy: $reason" \
            "./run-service.sh restart starts it and what it needs anew."
    fi
    USE_TMUX=$STATE_TMUX CFG_REDIS_SHOWN=$STATE_REDIS CFG_AUTH=$STATE_AUTH
    CFG_URL=$STATE_URL CFG_PORT=$STATE_PORT CFG_SIMULATOR_PORT=$STATE_SIMULATOR_PORT
    say "The service is already up."
    print_addresses
}

choose_tmux() {
    if [[ $WANT_TMUX == no ]] || ! command -v tmux >/dev/null 2>&1; then return 0; fi
    if session_exists; then # ours would be gone by now
        local root
        root=$(in_tmux show-options -v -t "=$SESSION:" @coze_fastapi_root 2>/dev/null) || root=""
        die "a tmux session named $SESSION exists and is not of this checkout (made by: ${root:-unknown})" \
            "End it yourself (tmux kill-session -t $SESSION), or use: ./run-service.sh $MODE --no-tmux"
    fi
    USE_TMUX=yes
}

check_port() {
    local reason health code=0
    reason=$(probe bindable "$CFG_HOST" "$CFG_PORT") && return 0
    health=$(probe health "$CFG_URL") || code=$?
    case $code in
        0 | 2) health="a coze-api that was not started from this checkout ($health)" ;;
        1) die "cannot listen on HOST=$CFG_HOST PORT=$CFG_PORT: $reason" "Choose another HOST or PORT." ;;
        *) health="not a coze-api" ;;
    esac
    die "port $CFG_PORT is taken by $(port_owner "$CFG_PORT"): $health" \
        "End it yourself, or choose another port: PORT=$(next_port $((CFG_PORT + 1))) ./run-service.sh $MODE"
}

# A start that failed, or was interrupted, takes down what it had started. The logs stay.
abandon() { # exit status
    trap '' INT TERM HUP
    set +e
    if [[ -n $WAITER ]]; then kill "$WAITER" 2>/dev/null; fi
    if [[ $STARTED == yes ]]; then end_all >&2; fi
    exit "$1"
}

page_url() { # the service's address: that for a browser
    if [[ $MODE == test ]]; then printf '%s:%s' "${1%:*}" "$CFG_PAGE_PORT"; else printf '%s' "$1"; fi
}

docs_line() {
    if [[ $MODE == test || ${APP_MODE:-} == local || ${ENABLE_DOCS:-} == true ]]; then
        say "  API docs   $(page_url "$CFG_URL")/docs"
    else
        say "  API docs   off with APP_MODE=remote unless ENABLE_DOCS=true"
    fi
}

playground_line() {
    if [[ ${ENABLE_PLAYGROUND:-} == true && $MODE != test && $CFG_PAGE_PORT != "$CFG_PORT" ]]; then
        say "  playground browsers refuse port $CFG_PORT: PORT=$CFG_PAGE_PORT ./run-service.sh restart"
    elif [[ ${ENABLE_PLAYGROUND:-} == true ]]; then
        say "  playground $(page_url "$CFG_URL")/coze/playground"
    else
        say "  playground off unless ENABLE_PLAYGROUND=true"
    fi
}

# What `check --live` found of this Coze, so that nobody runs for long on what was only assumed.
live_line() {
    local summary=""
    if [[ -r $RUN_DIR/coze-live.json ]]; then
        summary=$(sed -n 's/^  "summary": "\(.*\)",$/\1/p' "$RUN_DIR/coze-live.json")
    fi
    say "  coze       ${summary:-not asked yet whether answers can be lost here: ./run-service.sh check --live}"
}

print_addresses() {
    local headers="" proxy="" say_sid="" python=python3
    command -v python3 >/dev/null 2>&1 || python="$VENV_PY"
    if [[ $CFG_AUTH == on ]]; then headers=" -H 'HtySudoerToken: <token>' -H 'HtyHost: <host>'"; fi
    if [[ -n ${http_proxy:-}${all_proxy:-}${ALL_PROXY:-} ]]; then proxy=" --noproxy '*'"; fi
    say_sid='import json,sys; print(json.load(sys.stdin)["data"]["task_result"]["data"]["session_id"])'
    cat <<TEXT

coze-fastapi is up ($MODE mode)
  service    $CFG_URL            health: $CFG_URL/coze/health
$(playground_line)
$(docs_line)
  redis      $CFG_REDIS_SHOWN
  logs       ${RUN_DIR#"$ROOT/"}/service.log    stop: ./run-service.sh stop
TEXT
    if [[ $MODE == deployment ]]; then live_line; fi
    if [[ $MODE == test ]]; then say "  simulator  http://127.0.0.1:$CFG_SIMULATOR_PORT/coze"; fi
    if [[ $USE_TMUX == yes ]]; then say "  tmux       tmux attach -t $SESSION"; fi
    cat <<TEXT

Try it (copy the lines as they are):
  SID=\$(curl -s$proxy $CFG_URL/coze/sessions$headers -H 'Content-Type: application/json' -d '{"user_id":"demo"}' | $python -c '$say_sid')
  curl -s$proxy $CFG_URL/coze/sessions/\$SID/messages$headers -H 'Content-Type: application/json' -d '{"message":"你好，介绍一下你自己"}'
  curl -N$proxy $CFG_URL/coze/sessions/\$SID/messages$headers -H 'Content-Type: application/json' -d '{"message":"what did I say before?","stream":true}'

TEXT
}

attach_on_a_terminal() {
    [[ $USE_TMUX == yes && -t 0 && -t 1 ]] || return 0
    if [[ -n ${TMUX:-} ]]; then
        in_tmux switch-client -t "=$SESSION" || true
    else
        in_tmux attach-session -t "=$SESSION" || true
    fi
}

# ---------------------------------------------------------------- stop, status, restart

# These work without the virtual environment, too.
use_some_python() {
    if [[ -x $VENV_PY ]] && "$VENV_PY" -c '' 2>/dev/null; then PY="$VENV_PY"; else find_python; fi
}

stop() {
    if [[ ! -d $RUN_DIR ]]; then
        say "Nothing was started from here."
        return
    fi
    take_lock service 150 || die "another run-service.sh is at work in this checkout" "Wait for it, or end it."
    end_all
    if [[ ${#ENDED[@]} == 0 ]]; then
        say "Nothing was running."
    else
        check_ports_free || exit 1
        say "Stopped: $(IFS=,; echo "${ENDED[*]}")"
    fi
}

status() {
    local pid text code=3 part
    read_state
    if pid=$(pid_of service); then
        if text=$(probe health "$STATE_URL"); then code=0; else code=1; fi
        say "service:    running, pid $pid, $STATE_URL, $text"
        say "mode:       $STATE_MODE$([[ $STATE_TMUX == no ]] || echo ", tmux session $SESSION")"
    else
        say "service:    not running"
    fi
    for part in simulator redis; do
        if pid=$(pid_of "$part"); then
            if [[ $part == redis ]]; then text=$STATE_REDIS; else text="port $STATE_SIMULATOR_PORT"; fi
            say "$(printf '%-11s' "$part:") running, pid $pid, $text"
        elif [[ $part == redis && $code != 3 ]]; then
            say "redis:      $STATE_REDIS (not started from here)"
        else
            say "$(printf '%-11s' "$part:") not started from here"
        fi
    done
    return "$code"
}

restart() {
    local tmux_then=""
    if [[ -f $RUN_DIR/mode ]]; then
        { read -r mode_then && read -r tmux_then; } <"$RUN_DIR/mode" || true
        MODE=${MODE:-${mode_then:-}}
    fi
    [[ -n $MODE ]] || die "nothing was started from here yet, so the mode is not known" "Use: ./run-service.sh test"
    if [[ -z $WANT_TMUX && $tmux_then == no ]]; then WANT_TMUX=no; fi
    ensure_venv requirements.lock
    load_settings # all that can be refused is refused while the old one still runs
    stop
    drop_lock
    start
}

main() {
    parse_arguments "$@"
    cd "$ROOT"
    if [[ $ACTION == stop || $ACTION == restart ]] && inside_our_session; then
        die "this terminal is a pane of the tmux session $SESSION and would end in the middle" \
            "Detach (Ctrl-b d) or use another terminal for: ./run-service.sh $ACTION"
    fi
    case $ACTION in
        start)
            ensure_venv requirements.lock
            load_settings
            start
            drop_lock
            attach_on_a_terminal
            ;;
        check)
            ensure_venv requirements.lock
            COZE_RUN_DIR=$RUN_DIR exec "$VENV_PY" -m app.check ${CHECK_OPTIONS[@]+"${CHECK_OPTIONS[@]}"}
            ;;
        stop)
            use_some_python
            stop
            ;;
        status)
            use_some_python
            status
            ;;
        restart)
            restart
            drop_lock
            attach_on_a_terminal
            ;;
    esac
}

main "$@"
