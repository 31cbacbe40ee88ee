#!/usr/bin/env bash
# Builds the image(s) with podman. See usage below, and docs/en/operation.md.
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
BASE=python:3.11-slim-bookworm

usage() {
    cat <<'TEXT'
Usage: ./podman-build.sh [options]

  -t, --tag NAME[:TAG]   the image's name (coze-fastapi:latest)
  --all                  also NAME-proxy:TAG, the nginx of podman-compose.yml
  --no-cache             every layer anew
  --no-proxy             no proxy (the default: a proxy in the environment is not used either)
  --proxy-host HOST      build through the HTTP proxy at HOST
  --proxy-port PORT      ... and this port (7890)
  --network NETWORK      podman's network for the build: host, or a network's name
  --pip-conf FILE        pip configuration (index, password) for this build; it is in no layer
  --ca-cert FILE         certificates that pip trusts in this build; in no layer

PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_TRUSTED_HOST of the environment are handed to the build in the
same way. Without any of these the pip configuration of the base image holds.
TEXT
}

die() {
    printf 'ERROR: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

bad_usage() {
    printf 'ERROR: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

need() { # option, number of arguments left
    (($2 > 1)) || bad_usage "$1 needs a value"
}

parse_arguments() {
    NAME=coze-fastapi:latest ALL=no PROXY=unset PROXY_HOST="" PROXY_PORT="" NETWORK="" PIP_CONF="" CA_CERT=""
    OPTIONS=(--layers --format docker --http-proxy=false)
    while (($#)); do
        case $1 in
            -h | --help) usage && exit 0 ;;
            -t | --tag) need "$1" $# && NAME=$2 && shift ;;
            --all) ALL=yes ;;
            --no-cache) OPTIONS+=(--no-cache) ;;
            --no-proxy) PROXY=no ;;
            --proxy-host) need "$1" $# && PROXY_HOST=$2 && shift ;;
            --proxy-port) need "$1" $# && PROXY_PORT=$2 && shift ;;
            --network) need "$1" $# && NETWORK=$2 && shift ;;
            --pip-conf) need "$1" $# && PIP_CONF=$2 && shift ;;
            --ca-cert) need "$1" $# && CA_CERT=$2 && shift ;;
            *) bad_usage "unknown argument: $1" ;;
        esac
        shift
    done
    [[ $NAME =~ ^[a-z0-9][a-z0-9._/:-]*$ ]] || bad_usage "not a name for an image: $NAME"
    if [[ ${NAME##*/} != *:* ]]; then NAME+=":latest"; fi
    check_proxy
    local file
    for file in "$PIP_CONF" "$CA_CERT"; do
        [[ -z $file || -r $file ]] || die "cannot read the file $file"
    done
}

check_proxy() {
    [[ $PROXY != no || -z $PROXY_HOST$PROXY_PORT ]] || bad_usage "--no-proxy and a proxy were both given"
    [[ -n $PROXY_HOST || -z $PROXY_PORT ]] || bad_usage "--proxy-port needs --proxy-host"
    [[ -n $PROXY_HOST ]] || return 0
    PROXY_PORT=${PROXY_PORT:-7890}
    [[ $PROXY_HOST =~ ^[A-Za-z0-9.:-]+$ ]] ||
        bad_usage "--proxy-host takes a name or an address without http:// and without a password: $PROXY_HOST"
    [[ $PROXY_PORT =~ ^[1-9][0-9]{0,4}$ && $PROXY_PORT -le 65535 ]] ||
        bad_usage "--proxy-port is not a number from 1 to 65535: $PROXY_PORT"
    local address="http://$PROXY_HOST:$PROXY_PORT" name
    # These are known to every build, and are stored in no image.
    for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; do OPTIONS+=(--build-arg "$name=$address"); done
    # A proxy on this machine's own loopback is reached from its own network only.
    if [[ -z $NETWORK && ($PROXY_HOST == localhost || $PROXY_HOST == 127.*) ]]; then NETWORK=host; fi
}

check_podman() {
    command -v podman >/dev/null 2>&1 ||
        die "podman is not installed" "Debian, Ubuntu: apt install podman. 请先安装 podman。"
    podman info >/dev/null 2>&1 || die "podman is installed but does not work here" "See what it says: podman info"
}

# What pip is to know for this build alone.
write_secrets() {
    SECRETS=$(mktemp -d)
    trap 'rm -rf -- "$SECRETS"' EXIT
    local name value
    if [[ -n $PIP_CONF ]]; then
        cp -- "$PIP_CONF" "$SECRETS/pip.conf"
    elif [[ -n ${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}${PIP_TRUSTED_HOST:-} ]]; then
        printf '[global]\n' >"$SECRETS/pip.conf"
        for name in INDEX_URL EXTRA_INDEX_URL TRUSTED_HOST; do
            value="PIP_$name"
            value=${!value:-}
            name=${name,,}
            if [[ -n $value ]]; then printf '%s = %s\n' "${name//_/-}" "$value" >>"$SECRETS/pip.conf"; fi
        done
    fi
    if [[ -f $SECRETS/pip.conf ]]; then OPTIONS+=(--secret "id=pip_conf,src=$SECRETS/pip.conf"); fi
    if [[ -n $CA_CERT ]]; then
        cp -- "$CA_CERT" "$SECRETS/ca.pem"
        OPTIONS+=(--secret "id=ca_cert,src=$SECRETS/ca.pem")
    fi
}

build() { # name, Dockerfile
    printf 'Building %s ...\n' "$1"
    podman build "${OPTIONS[@]}" --file "$ROOT/$2" --tag "$1" "$ROOT" && return 0
    die "could not build $1 (the lines above)" \
        "The base image $BASE has to be here, or to be had: podman pull $BASE" \
        "Names not found in the build: --network host. A proxy: --proxy-host. A mirror: PIP_INDEX_URL, --pip-conf." \
        "基础镜像或软件源无法访问时，请使用 --proxy-host、PIP_INDEX_URL 或 --network host 后重试。"
}

main() {
    parse_arguments "$@"
    check_podman
    write_secrets
    if [[ -n $NETWORK ]]; then OPTIONS+=("--network=$NETWORK"); fi
    build "$NAME" Dockerfile
    BUILT=("$NAME")
    if [[ $ALL == yes ]]; then
        build "${NAME%:*}-proxy:${NAME##*:}" deploy/nginx/Dockerfile
        BUILT+=("${NAME%:*}-proxy:${NAME##*:}")
    fi
    printf '\nBuilt:\n'
    local image
    for image in "${BUILT[@]}"; do
        printf '  %-32s %s MB\n' "$image" "$(($(podman image inspect --format '{{.Size}}' "$image") / 1000000))"
    done
    printf 'Next: ./podman-run.sh (development), or podman-compose -f podman-compose.yml up -d (production)\n'
}

main "$@"
