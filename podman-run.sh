#!/usr/bin/env bash
# Runs coze-fastapi in a container, for development or as in production. See usage below, and docs/en/operation.md.
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/common.sh
source "$ROOT/scripts/common.sh"
# shellcheck source=scripts/podman.sh
source "$ROOT/scripts/podman.sh"
IMAGE=${COZE_IMAGE:-coze-fastapi:latest}
CONTAINER=${COZE_CONTAINER:-coze-fastapi}
VOLUME=$CONTAINER-data

usage() {
    cat <<'TEXT'
Usage: ./podman-run.sh [start] [PORT] [--read-only] [--production] | stop | restart | enter | logs [-f] | status

  start         the development container: it waits, with this project at /coze-fastapi; then
                ./podman-run.sh enter, and ./run-service.sh test inside. Edits and .env show at once.
    PORT          the port on this machine (else HOST_PORT, of the environment or .env, else 6000);
                  127.0.0.1:6001 listens on that address only
    --read-only   the project is mounted read-only
    --production  the service of the image is the container's command; nothing is mounted. Settings:
                  .env as it is now, and the environment before it. It needs a REDIS_URL.
  stop          ends it (running chats are handed over) and removes it; the volume with Redis' data stays
  restart       stop, then start as it was started, with .env as it is now; what would not start is refused
                while the old one still runs
  enter         a shell in it
  logs          what the service has written (-f: and writes)
  status        exit status 0: healthy, 1: runs, but the service does not or is not healthy, 3: not running

COZE_CONTAINER (coze-fastapi) and COZE_IMAGE (coze-fastapi:latest) name the container and the image,
PODMAN_NETWORK the network that it joins.
TEXT
}

bad_usage() {
    printf 'ERROR: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

parse_arguments() {
    ACTION="" PORT="" HOW=development ACCESS="rw" FOLLOW=()
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help) usage && exit 0 ;;
            start | stop | restart | enter | logs | status)
                [[ -z $ACTION ]] || bad_usage "two commands given"
                ACTION=$argument
                ;;
            --read-only) ACCESS="ro" ;;
            --production) HOW=production ;;
            -f) FOLLOW=(-f) ;;
            [0-9]*)
                [[ -z $PORT ]] || bad_usage "two ports given"
                PORT=$argument
                ;;
            *) bad_usage "unknown argument: $argument" ;;
        esac
    done
    ACTION=${ACTION:-start}
    [[ $ACTION == start || $PORT$HOW$ACCESS == developmentrw ]] ||
        bad_usage "$ACTION takes no port and no options; give them to start"
    [[ ${#FOLLOW[@]} == 0 || $ACTION == logs ]] || bad_usage "-f belongs to logs"
    [[ $HOW == development || $ACCESS == rw ]] || bad_usage "--production mounts nothing, so --read-only says nothing"
    [[ $CONTAINER =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] || die "not a name for a container: COZE_CONTAINER=$CONTAINER"
}

# ---------------------------------------------------------------- what is there

state() { podman container inspect --format '{{.State.Status}}' "$CONTAINER" 2>/dev/null || true; }
label() { podman container inspect --format "{{index .Config.Labels \"coze-fastapi.$1\"}}" "$CONTAINER"; }
is_ours() { [[ $(label root) == "$ROOT" ]]; }

need_ours() { # what to do with it
    is_ours || die "a container named $CONTAINER exists and was not started from here, so I do not $1 it" \
        "End it yourself, or use another name: COZE_CONTAINER=other ./podman-run.sh"
}

need_running() {
    [[ $(state) == running ]] || die "the container $CONTAINER does not run" "Start it: ./podman-run.sh"
}

# ---------------------------------------------------------------- start

choose_port() {
    PORT=${PORT:-$(setting HOST_PORT)}
    PORT=${PORT:-6000}
    local number=${PORT##*:}
    [[ $PORT =~ ^(([0-9]{1,3}\.){3}[0-9]{1,3}:)?[1-9][0-9]{0,4}$ && $number -le 65535 ]] ||
        die "not a port, and not ADDRESS:PORT: $PORT" "Examples: ./podman-run.sh start 6001, HOST_PORT=127.0.0.1:6001 ./podman-run.sh"
}

# Where the service is reached from this machine.
address() { # PORT or ADDRESS:PORT
    local host=127.0.0.1
    if [[ $1 == *:* ]]; then host=${1%:*}; fi
    if [[ $host == 0.0.0.0 ]]; then host=127.0.0.1; fi
    printf 'http://%s:%s' "$host" "${1##*:}"
}

start() {
    case $(state) in
        running)
            need_ours touch
            say "The container $CONTAINER already runs."
            if [[ -n $PORT && $PORT != "$(label port)" ]]; then
                die "... on port $(label port), not $PORT" "To move it: ./podman-run.sh stop, then ./podman-run.sh start $PORT"
            fi
            [[ $HOW == "$(label how)" ]] || die "... for $(label how)" "To change that: ./podman-run.sh stop first."
            PORT=$(label port)
            say_next
            return
            ;;
        "") ;;
        *) need_ours remove && podman rm --force "$CONTAINER" >/dev/null ;;
    esac
    prepare
    launch
}

# All that can be refused is refused here, before anything is changed.
prepare() {
    podman image exists "$IMAGE" || die "there is no image $IMAGE" "Build it: ./podman-build.sh. 请先构建镜像：./podman-build.sh"
    choose_port
    choose_drain
    if [[ -n ${PODMAN_NETWORK:-} ]]; then OPTIONS+=("--network=$PODMAN_NETWORK"); fi
    if [[ $HOW == production ]]; then prepare_production; else prepare_development; fi
}

launch() {
    local text given=""
    if [[ $HOW == production ]]; then given=$(given_settings); fi
    OPTIONS+=(--detach --init --name "$CONTAINER" --publish "$PORT:6000" --http-proxy=false
        --label "coze-fastapi.root=$ROOT" --label "coze-fastapi.port=$PORT" --label "coze-fastapi.how=$HOW"
        --label "coze-fastapi.access=$ACCESS" --label "coze-fastapi.network=${PODMAN_NETWORK:-}"
        --label "coze-fastapi.given=${given//$'\n'/ }")
    if [[ $HOW == production ]]; then
        # always: what podman-restart.service looks for after a start of the machine
        OPTIONS+=(--read-only --cap-drop=all --security-opt=no-new-privileges --restart=always)
    else
        OPTIONS+=(--no-healthcheck --volume "$VOLUME:/data:U")
    fi
    if ! text=$(podman run "${OPTIONS[@]}" "$IMAGE" "${COMMAND[@]}" 2>&1); then
        podman rm --force "$CONTAINER" >/dev/null 2>&1 || true
        if [[ $text == *"address already in use"* ]]; then
            die "port $PORT is taken on this machine" "Choose another: ./podman-run.sh start 6001"
        fi
        die "podman could not start the container:" "$text"
    fi
    remove_secrets
    if [[ $HOW == production ]]; then await_service; fi
    say_next
}

prepare_development() {
    COMMAND=(coze-idle)
    local mount="$ROOT:/coze-fastapi:Z" owner
    if [[ $ACCESS == ro ]]; then mount+=",ro"; fi
    OPTIONS+=(--volume "$mount")
    # As the project's owner, so that what is made in it belongs to who works on it; but never as root.
    owner=$(stat -c '%u:%g' "$ROOT")
    if [[ $(podman info --format '{{.Host.Security.Rootless}}') == true ]]; then
        OPTIONS+=(--userns=keep-id --user "$owner")
    elif [[ $owner != 0:* ]]; then
        OPTIONS+=(--user "$owner")
    fi
    rehearse_mount
}

prepare_production() {
    COMMAND=(bash -c "$WITH_ENVIRONMENT" bash python -m app)
    local url token
    url=$(setting REDIS_URL)
    case $url in
        "") die "--production needs a REDIS_URL (in .env or in the environment)" \
            "With a Redis of its own: podman-compose -f podman-compose.yml up -d. Without any, to try it: REDIS_URL=memory://" ;;
        *://localhost* | *://127.* | *@localhost* | *@127.*)
            [[ ${PODMAN_NETWORK:-} == host ]] ||
                die "REDIS_URL names this machine as localhost, which in a container is the container" \
                    "For a Redis on this machine: host.containers.internal in its place. Or: podman-compose -f podman-compose.yml up -d" ;;
    esac
    token=$(setting COZE_API_TOKEN)$(setting COZE_AUTHORIZATION)$(setting COZE_API_TOKEN_FILE)
    token+=$(setting COZE_API_TOKENS)$(setting COZE_OAUTH_APP_ID)
    [[ -n $(setting COZE_BOT_ID) && -n $token ]] ||
        die "--production needs COZE_API_TOKEN and COZE_BOT_ID" \
            "Write them into .env, for example: cp .env.example .env, then edit it. 请在 .env 中设置。"
    pass_settings
}

await_service() {
    local until=$((SECONDS + 120)) # a busy machine takes its time
    while ((SECONDS < until)); do
        if [[ $(state) != running || $(podman container inspect --format '{{.RestartCount}}' "$CONTAINER") != 0 ]]; then
            podman logs "$CONTAINER" 2>&1 | tail -n 20 >&2
            podman rm --force "$CONTAINER" >/dev/null
            die "the service ended as soon as it was started (its last lines are above)"
        fi
        if healthy; then return 0; fi
        sleep 0.5
    done
    podman logs "$CONTAINER" 2>&1 | tail -n 10 >&2
    die "the service runs, but is not healthy (its last lines are above)" \
        "Does REDIS_URL lead to a Redis, seen from a container? It stays as it is: ./podman-run.sh status, stop"
}

healthy() {
    podman exec "$CONTAINER" curl -fsS -o /dev/null --noproxy '*' --max-time 4 http://127.0.0.1:6000/coze/health >/dev/null 2>&1
}

say_next() {
    say ""
    if [[ $HOW == production ]]; then
        say "coze-fastapi runs in the container $CONTAINER: $(address "$PORT")/coze/health"
        say "  logs: ./podman-run.sh logs -f    stop: ./podman-run.sh stop"
    else
        say "The container $CONTAINER waits, with this project at /coze-fastapi."
        say "  ./podman-run.sh enter      then, inside: ./run-service.sh test   (or: deployment)"
        say "  Port 6000 inside is $(address "$PORT") on this machine: curl $(address "$PORT")/coze/health"
    fi
}

# ---------------------------------------------------------------- the rest

stop() {
    if [[ -z $(state) ]]; then
        say "The container $CONTAINER does not exist; nothing to stop."
        return
    fi
    need_ours stop
    local kept=""
    if [[ $(label how) == development ]]; then kept=" Its volume $VOLUME stays (podman volume rm $VOLUME removes it)."; fi
    end_container
    remove_secrets
    say "Stopped and removed: $CONTAINER.$kept"
}

end_container() {
    podman stop "$CONTAINER" >/dev/null
    podman rm --force "$CONTAINER" >/dev/null
}

# As it was started: its port, network, image and environment, unless this environment says otherwise.
restart() {
    [[ -n $(state) ]] || die "the container $CONTAINER does not exist, so how to start it is not known" "Use: ./podman-run.sh start"
    need_ours restart
    PORT=$(label port) HOW=$(label how) ACCESS=$(label access)
    PODMAN_NETWORK=${PODMAN_NETWORK:-$(label network)}
    if [[ -z ${COZE_IMAGE:-} ]]; then IMAGE=$(podman container inspect --format '{{.ImageName}}' "$CONTAINER"); fi
    recall_environment
    prepare # it refuses while the old one still runs
    if [[ $HOW == production ]]; then rehearse_settings; fi
    end_container
    say "Stopped: $CONTAINER. Starting it anew ..."
    launch
}

# podman does not give secrets back, but the container that has them can be asked.
recall_environment() {
    local name lacking=() line
    for name in $(label given); do
        if [[ -z ${!name+set} ]]; then lacking+=("$name"); fi
    done
    [[ ${#lacking[@]} != 0 ]] || return 0
    [[ $(state) == running ]] ||
        die "the container $CONTAINER does not run, so what its environment set cannot be read: ${lacking[*]}" \
            "Set it again in the environment of this call, or write it into .env. Or, as it was: podman start $CONTAINER"
    while IFS= read -r -d '' line; do
        name=${line%%=*}
        if [[ " ${lacking[*]} " == *" $name "* ]]; then export "$name=${line#*=}"; fi
    done < <(podman exec "$CONTAINER" cat "$ENVIRONMENT")
}

enter() {
    need_running
    need_ours enter
    local terminal=(--interactive)
    if [[ -t 0 && -t 1 ]]; then terminal+=(--tty --env "TERM=${TERM:-xterm}"); fi
    exec podman exec "${terminal[@]}" "$CONTAINER" bash
}

logs() {
    [[ -n $(state) ]] || die "the container $CONTAINER does not exist" "Start it: ./podman-run.sh"
    need_ours read
    if [[ $(label how) == production ]]; then exec podman logs "${FOLLOW[@]}" "$CONTAINER"; fi
    need_running
    podman exec "$CONTAINER" test -e /data/run/service.log ||
        die "the service has not been started in it yet" "./podman-run.sh enter, then ./run-service.sh test"
    local show=(cat)
    if [[ ${#FOLLOW[@]} != 0 ]]; then show=(tail -n 100 -F); fi
    exec podman exec "$CONTAINER" "${show[@]}" /data/run/service.log
}

status() {
    if [[ $(state) != running ]]; then
        say "container:  $CONTAINER does not run"
        return 3
    fi
    need_ours ask
    say "container:  $CONTAINER runs, for $(label how), port 6000 inside is $(address "$(label port)")"
    if healthy; then
        say "service:    healthy"
        return 0
    fi
    say "service:    does not run, or is not healthy"
    return 1
}

main() {
    parse_arguments "$@"
    cd "$ROOT"
    check_podman
    "$ACTION"
}

main "$@"
