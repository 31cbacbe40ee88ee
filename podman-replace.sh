#!/usr/bin/env bash
# Replaces the replicas of podman-compose.yml without a failed request. See usage below, and docs/en/operation.md.
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/common.sh
source "$ROOT/scripts/common.sh"
# shellcheck source=scripts/podman.sh
source "$ROOT/scripts/podman.sh"

usage() {
    cat <<'TEXT'
Usage: ./podman-replace.sh [-p PROJECT] [-f FILE]...

After a new build, or an edit of .env or podman-compose.yml: the replicas are replaced one at a time, while nginx
serves from the others. First one more is started as things are now; where it does not become healthy it is
removed again, the settings are put back, and nothing has changed. Then each replica is told to leave, its chats
get their time (DRAIN_SECONDS), and a new one takes its place. At last the one more is told to leave.
.env goes in as the secret that the replicas have. Redis and nginx are not touched.

  -p, -f   as podman-compose takes them (default: podman-compose.yml); so are REPLICAS, COZE_IMAGE, COZE_TAG

PODMAN_COMPOSE: the podman-compose to use. Run it again after it was interrupted: it goes on.
TEXT
}

parse_arguments() {
    PROJECT=() FILES=()
    while (($#)); do
        case $1 in
            -h | --help) usage && exit 0 ;;
            -p | -f)
                (($# > 1)) || bad_usage "$1 needs a value"
                if [[ $1 == -p ]]; then PROJECT=(-p "$2"); else FILES+=(-f "$2"); fi
                shift
                ;;
            *) bad_usage "unknown argument: $1" ;;
        esac
        shift
    done
    if [[ ${#FILES[@]} == 0 ]]; then FILES=(-f podman-compose.yml); fi
    WANTED=$(setting REPLICAS)
    WANTED=${WANTED:-2}
    [[ $WANTED =~ ^[1-9][0-9]?$ ]] || die "not a number of replicas: REPLICAS=$WANTED"
}

bad_usage() {
    printf 'ERROR: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

compose() { "${PODMAN_COMPOSE:-podman-compose}" ${PROJECT[@]+"${PROJECT[@]}"} "${FILES[@]}" "$@"; }

# ---------------------------------------------------------------- what is there

replicas() { # NUMBER NAME, the smallest number first
    local name
    for name in $(compose ps --format '{{.Names}}' 2>/dev/null); do
        podman container inspect --format \
            '{{index .Config.Labels "com.docker.compose.service"}} {{index .Config.Labels "com.docker.compose.container-number"}} {{.Name}}' \
            "$name" 2>/dev/null || true
    done | sed -n 's/^service \([0-9]* .*\)$/\1/p' | sort -n
}

is_ready() { # name
    podman exec "$1" curl -fsS -o /dev/null --noproxy '*' --max-time 4 http://127.0.0.1:6000/coze/health/ready >/dev/null 2>&1
}

await_ready() { # name
    local until=$((SECONDS + 180))
    while ((SECONDS < until)); do
        if is_ready "$1"; then return 0; fi
        # It was restarted: it ended by itself, and would again.
        [[ $(podman container inspect --format '{{.RestartCount}}' "$1" 2>/dev/null) == 0 ]] || return 1
        sleep 0.5
    done
    return 1
}

# ---------------------------------------------------------------- steps

# The old text is kept, as a replica has it: podman does not give it back.
renew_settings() { # NUMBER NAME of the replicas, one a line
    local number name
    SECRET="" BEFORE=""
    [[ -e $ROOT/.env ]] || return 0
    [[ -r $ROOT/.env ]] || die "cannot read $ROOT/.env"
    while read -r number name; do
        SECRET=$(podman container inspect --format '{{range .Config.Secrets}}{{.Name}} {{end}}' "$name")
        SECRET=${SECRET%% *}
        BEFORE=$(podman exec "$name" cat /coze-fastapi/.env 2>/dev/null </dev/null) || BEFORE=""
        if [[ -n $BEFORE ]]; then break; fi
    done <<<"$1"
    if [[ -n $SECRET ]]; then put_settings <"$ROOT/.env"; fi
}

put_settings() { # its text on standard input
    podman secret rm "$SECRET" >/dev/null
    cat | podman secret create "$SECRET" - >/dev/null || die "podman took no secret named $SECRET (the line above)"
}

# --no-recreate: podman-compose would end all that differs from its file at once. --scale: no label changes by it.
create_missing() {
    compose up -d --no-recreate --scale "service=$((WANTED + 1))" >/dev/null 2>"$LOG" ||
        { cat "$LOG" >&2 && return 1; }
}

# Its chats get their time. 137: it had to be killed, and another replica finishes what it had.
remove() { # name
    local drain code
    drain=$(podman exec "$1" printenv DRAIN_SECONDS 2>/dev/null) || drain=20
    podman stop -t "$((${drain%.*} + 15))" "$1" >/dev/null
    code=$(podman container inspect --format '{{.State.ExitCode}}' "$1")
    if [[ $code == 137 ]]; then warn "$1 did not end within $((${drain%.*} + 15)) seconds and was killed"; fi
    podman rm --force "$1" >/dev/null
}

give_up() { # the replica that does not work
    if [[ -n $1 ]]; then
        podman logs "$1" 2>&1 | tail -n 20 >&2 || true
        podman rm --force --time 1 "$1" >/dev/null 2>&1 || true
    fi
    if [[ -n $BEFORE ]]; then put_settings <<<"$BEFORE"; fi
    die "a replica as things are now does not become healthy (its last lines are above)" \
        "Nothing was replaced, and the settings are those of before. .env is as you left it."
}

main() {
    parse_arguments "$@"
    cd "$ROOT"
    check_podman
    command -v "${PODMAN_COMPOSE:-podman-compose}" >/dev/null 2>&1 ||
        die "podman-compose is not installed" "pip install podman-compose==1.6.0, or name it in PODMAN_COMPOSE."
    LOG=$(mktemp)
    trap 'rm -f -- "$LOG"' EXIT
    local there old=() number name
    there=$(replicas)
    [[ -n $there ]] || die "no replica runs" "Start them: podman-compose -f podman-compose.yml up -d"
    renew_settings "$there"

    # One that is beyond the number was left by a call that was interrupted: it is this call's one more.
    while read -r number name; do
        if ((number <= WANTED)); then old+=("$name"); fi
    done <<<"$there"
    create_missing || give_up ""
    while read -r number name; do
        if [[ $there != *" $name"* ]]; then
            await_ready "$name" || give_up "$name"
            say "  started:  $name"
        fi
    done < <(replicas)

    for name in ${old[@]+"${old[@]}"}; do
        remove "$name"
        create_missing || die "$name could not be started anew (the lines above)" "The others run."
        await_ready "$name" || die "$name does not become healthy: podman logs $name" "The others run."
        say "  replaced: $name"
    done
    while read -r number name; do
        if ((number > WANTED)); then remove "$name"; fi
    done < <(replicas)
    say "Replaced: ${#old[@]} replicas. $WANTED run."
}

main "$@"
