# shellcheck shell=bash
# shellcheck disable=SC2034  # podman-run.sh and podman-replace.sh read what is set here
# How a container of the service gets its settings; sourced after common.sh.
# Nothing of a setting is on a command line or in what `podman inspect` shows: they go in as files that are
# secrets. (It shows secrets of the type env like any variable, at least podman 4.3 does.)

OPTIONS=() # of `podman run`: settings, user, mounts
SECRETS=() # the names of those that OPTIONS uses
ENVIRONMENT=/coze-fastapi/.environment # NAME=value of what the environment set, each with a NUL behind it
# A program with that environment, as `bash -c`; its arguments are the program's.
# shellcheck disable=SC2016
WITH_ENVIRONMENT='if [[ -e .environment ]]; then
    while IFS= read -r -d "" line; do export "${line?}"; done <.environment
fi
exec "$@"'

check_podman() {
    command -v podman >/dev/null 2>&1 ||
        die "podman is not installed" "Debian, Ubuntu: apt install podman. 请先安装 podman。"
    podman info >/dev/null 2>&1 || die "podman is installed but does not work here" "See what it says: podman info"
}

# ---------------------------------------------------------------- settings

setting_names() { # all that the service reads
    sed -n 's/^#\{0,1\}\([A-Z][A-Z0-9_]*\)=.*/\1/p' "$ROOT/.env.example"
}

setting() { # name: of the environment, else of .env (a plain NAME=value line)
    local value=${!1:-}
    if [[ -z $value && -r $ROOT/.env ]]; then
        value=$(sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$1[[:space:]]*=[[:space:]]*//p" "$ROOT/.env" | tail -n 1)
        value=${value%%[[:space:]]#*}
        value=${value%"${value##*[![:space:]]}"}
        value=${value#[\'\"]}
        value=${value%[\'\"]}
    fi
    printf '%s' "$value"
}

# What the environment of this shell sets, one name a line. Where the service listens in a container is not
# for it to say, and its drain is passed with the time that podman waits (choose_drain).
given_settings() {
    local name
    for name in $(setting_names); do
        case $name in
            HOST | PORT | HOST_PORT | DRAIN_SECONDS) ;;
            *) if [[ -n ${!name+set} ]]; then printf '%s\n' "$name"; fi ;;
        esac
    done
}

# Paths of files that the settings name, one a line: a token, a key, a certificate for Redis.
named_files() {
    local name url rest
    for name in $(setting_names); do
        if [[ $name == *_FILE && $name != COZE_LOG_FILE ]]; then setting "$name" && printf '\n'; fi
    done
    url=$(setting REDIS_URL)
    rest=${url#*\?}
    if [[ $rest == "$url" ]]; then return 0; fi
    local part
    for part in ${rest//&/ }; do
        case $part in
            ssl_ca_certs=* | ssl_certfile=* | ssl_keyfile=*)
                part=${part#*=}
                printf '%b\n' "${part//%/\\x}"
                ;;
        esac
    done
}

choose_drain() { # DRAIN: seconds for running chats; GRACE: what podman waits before it kills
    DRAIN=$(setting DRAIN_SECONDS)
    [[ $DRAIN =~ ^[0-9]{1,4}(\.[0-9]+)?$ ]] || DRAIN=20
    GRACE=$((${DRAIN%.*} + 15))
    OPTIONS+=(--env "DRAIN_SECONDS=$DRAIN" --stop-timeout "$GRACE")
}

# ---------------------------------------------------------------- secrets

use_secret() { # name, how it goes in; its content on standard input (podman takes a pipe only)
    podman secret rm "$1" >/dev/null 2>&1 || true
    cat | podman secret create "$1" - >/dev/null || die "podman took no secret named $1 (the line above)"
    OPTIONS+=(--secret "$1,$2")
    SECRETS+=("$1")
}

# .env, what the environment sets besides, and the files that either of them names. A file is there under the
# path that it has here, so the settings mean the same inside; one that is replaced is seen after a restart.
pass_settings() {
    local name path place number=0
    local -A seen=()
    if [[ -e $ROOT/.env ]]; then
        [[ -r $ROOT/.env ]] || die "cannot read $ROOT/.env"
        use_secret "$CONTAINER-env" "target=/coze-fastapi/.env,uid=10001,gid=10001,mode=0400" <"$ROOT/.env"
    fi
    if [[ -n $(given_settings) ]]; then
        use_secret "$CONTAINER-environment" "target=$ENVIRONMENT,uid=10001,gid=10001,mode=0400" < <(
            for name in $(given_settings); do printf '%s\0' "$name=${!name}"; done
        )
    fi
    while IFS= read -r path; do
        if [[ -z $path || -n ${seen[$path]:-} ]]; then continue; fi
        seen[$path]=yes
        place=/coze-fastapi/$path
        if [[ $path == /* ]]; then place=$path; else path=$ROOT/$path; fi
        [[ -f $path && -r $path && -s $path ]] ||
            die "a setting names the file $path, which is not there, empty, or cannot be read" \
                "Which: grep _FILE .env. 请检查 .env 中以 _FILE 结尾的设置。"
        [[ $place != *,* ]] || die "podman takes no file with a comma in its path: $path"
        use_secret "$CONTAINER-file-$((number += 1))" "target=$place,uid=10001,gid=10001,mode=0400" <"$path"
    done < <(named_files)
}

remove_secrets() { # those of the container that are not in SECRETS
    local name
    while IFS= read -r name; do
        if [[ $name =~ ^"$CONTAINER"-(env|environment|file-[0-9]+|[A-Z][A-Z0-9_]*)$ && " ${SECRETS[*]} " != *" $name "* ]]; then
            podman secret rm "$name" >/dev/null 2>&1 || true
        fi
    done < <(podman secret ls --format '{{.Name}}')
}

# ---------------------------------------------------------------- what a container would say, before it is needed

# With the settings that the service would get, whether it would start. Nothing is opened.
rehearse_settings() {
    local text code='from app.config import exiting_if_wrong, load_settings
with exiting_if_wrong():
    from app.factory.parts import check_parts
    check_parts(load_settings())'
    text=$(podman run --rm --no-healthcheck --http-proxy=false "${OPTIONS[@]}" "$IMAGE" \
        bash -c "$WITH_ENVIRONMENT" bash python -c "$code" 2>&1) ||
        die "with these settings the service would not start: $text"
}

# A mount that the container's user cannot read would look like a broken project.
rehearse_mount() { # what of the project, and by whom
    local text who group what
    text=$(podman run --rm --no-healthcheck --network=none --workdir / "${OPTIONS[@]}" "$IMAGE" bash -c '
        id -u; id -g
        cd /coze-fastapi 2>/dev/null && [[ -r . ]] || { echo .; exit; }
        find run-service.sh .env app coze_simulator scripts requirements.lock \
            \( ! -readable -o -type d ! -executable \) -print 2>/dev/null | head -n 5
        true' 2>&1) || die "podman could not start the container:" "$text"
    { read -r who && read -r group && what=$(cat); } <<<"$text"
    case $what in
        "") ;;
        .env)
            die "the container's user (uid $who) cannot read $ROOT/.env" \
                "Without showing it to everyone: chgrp $group .env && chmod g+r .env"
            ;;
        *)
            if [[ $what == . ]]; then what="the directory itself"; fi
            die "the container's user (uid $who) cannot read this project ($ROOT: ${what//$'\n'/, })" \
                "Without showing it to everyone: chgrp -R $group $ROOT && chmod -R g+rX $ROOT" \
                "Or run podman as the ordinary user that the project belongs to."
            ;;
    esac
}
