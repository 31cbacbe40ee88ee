# shellcheck shell=bash
# Makes the virtual environment from a hash-pinned lock; sourced after common.sh.
#   ensure_venv requirements.lock|requirements-dev.lock
# Nothing to do is found out in a fraction of a second. uv does the work: the one on PATH, else one that
# pip installs under .run (never into the system's Python, which PEP 668 may forbid); pip is the last resort.
# The user's pip and uv configuration is respected; no index is named here.

SETUP_LOG="$RUN_DIR/setup.log"
UV=""

venv_is_complete() { # lock file
    [[ -x $VENV_PY && ! -e $VENV/.coze-setup-unfinished ]] &&
        "$VENV_PY" -I "$ROOT/scripts/check_env.py" "$ROOT/$1" >/dev/null 2>&1
}

venv_has_dev_tools() { compgen -G "$VENV/lib/python3*/site-packages/pytest" >/dev/null; }

ensure_venv() {
    local lock_file=$1
    make_run_dir
    if ! venv_is_complete "$lock_file"; then
        find_python
        take_lock setup 600 || die "another set-up of this checkout has been running for 10 minutes" \
            "Wait for it, or end it (it holds .run/setup.lock)."
        venv_is_complete "$lock_file" || fill_venv "$lock_file"
        drop_lock
    fi
    PY="$VENV_PY"
}

fill_venv() {
    local lock_file=$1
    # Tools that run-tests.sh once put there stay there: that lock pins the same versions and more.
    if venv_has_dev_tools; then lock_file=requirements-dev.lock; fi
    : >"$SETUP_LOG"
    if [[ -x $VENV_PY && ! -w $VENV ]]; then
        die "$VENV does not hold what $lock_file pins, and cannot be changed" \
            "In a container: build the image anew (./podman-build.sh), or set UV_PROJECT_ENVIRONMENT=/data/venv." \
            "容器中请重新构建镜像：./podman-build.sh"
    fi
    say "Setting up ${VENV#"$ROOT/"} from $lock_file (the first time takes up to a minute) ..."
    check_venv_place
    read_pip_settings
    if find_uv && fill_with_uv "$lock_file"; then :; else
        warn "uv could not do it (see .run/setup.log); trying pip, which takes longer"
        fill_with_pip "$lock_file" || setup_failed
    fi
    venv_is_complete "$lock_file" || setup_failed
    say "Set up: $("$VENV_PY" --version), ${VENV#"$ROOT/"}"
}

setup_failed() {
    show_log_end "$SETUP_LOG" 25
    die "could not install the packages of the lock file into ${VENV#"$ROOT/"}" \
        "Is a package index reachable? pip and uv use your own configuration:" \
        "PIP_INDEX_URL or UV_DEFAULT_INDEX for a mirror, SSL_CERT_FILE for a company certificate." \
        "如果无法访问软件源，请用 PIP_INDEX_URL 指定可用的镜像后重试。"
}

# A directory that is no virtual environment is not ours to clear; one that no longer runs is.
check_venv_place() {
    [[ -e $VENV ]] || return 0
    [[ -x $VENV_PY ]] && "$VENV_PY" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
    if [[ -f $VENV/pyvenv.cfg ]]; then
        say "${VENV#"$ROOT/"} does not run any more (was its Python moved or removed?); making it anew"
        rm -rf -- "$VENV"
    elif [[ -n $(ls -A -- "$VENV") ]]; then
        die "$VENV exists and is not a virtual environment" "Move it away, or set UV_PROJECT_ENVIRONMENT."
    fi
}

# pip's index and certificate, for uv, which does not read pip's configuration. uv's own settings win.
read_pip_settings() {
    local name value
    while IFS='=' read -r name value; do
        value=${value#[\'\"]}
        value=${value%[\'\"]}
        case $name in
            *.index-url | *.index_url) PIP_INDEX=$value ;;
            *.cert) PIP_CERT_FILE=$value ;;
        esac
    done < <("$PY" -m pip config list 2>/dev/null | sort -r) # global., then :env:, which wins
    if [[ -n ${PIP_INDEX:-} && -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}${UV_CONFIG_FILE:-} ]] && ! uv_has_index; then
        export UV_DEFAULT_INDEX=$PIP_INDEX
    fi
    if [[ -z ${SSL_CERT_FILE:-} && -f ${PIP_CERT_FILE:-${REQUESTS_CA_BUNDLE:-}} ]]; then
        export SSL_CERT_FILE=${PIP_CERT_FILE:-$REQUESTS_CA_BUNDLE}
    elif [[ -n ${SSL_CERT_FILE:-} && -z ${PIP_CERT_FILE:-} ]]; then
        export PIP_CERT=$SSL_CERT_FILE
    fi
    export UV_PYTHON_DOWNLOADS=never
    unset UV_SYSTEM_PYTHON
}

uv_has_index() {
    grep -qs 'index' "${XDG_CONFIG_HOME:-$HOME/.config}/uv/uv.toml" /etc/uv/uv.toml "$ROOT/uv.toml"
}

find_uv() {
    local candidate
    for candidate in uv "$RUN_DIR/uv-venv/bin/uv" "$RUN_DIR/uv-target/bin/uv"; do
        if "$candidate" --version >>"$SETUP_LOG" 2>&1; then
            UV=$candidate
            return 0
        fi
    done
    install_uv
}

install_uv() {
    say "uv is not installed; installing it with pip into .run ..."
    if "$PY" -m pip --version >/dev/null 2>&1; then
        # --target touches nothing outside .run. An environment of its own would take several seconds more.
        PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 "$PY" -m pip install --disable-pip-version-check --no-deps --upgrade \
            --target "$RUN_DIR/uv-target" uv >>"$SETUP_LOG" 2>&1 && UV="$RUN_DIR/uv-target/bin/uv"
    elif "$PY" -c 'import ensurepip, venv' 2>/dev/null; then
        "$PY" -m venv --clear "$RUN_DIR/uv-venv" >>"$SETUP_LOG" 2>&1 &&
            PIP_USER=0 "$RUN_DIR/uv-venv/bin/python" -m pip install uv >>"$SETUP_LOG" 2>&1 &&
            UV="$RUN_DIR/uv-venv/bin/uv"
    else
        die "$PY has neither pip nor venv, so nothing can be installed" \
            "Debian, Ubuntu: apt install python3-venv python3-pip. Or install uv yourself." \
            "请安装 python3-venv 和 python3-pip（或自行安装 uv）后重试。"
    fi
    [[ -n $UV ]] && "$UV" --version >>"$SETUP_LOG" 2>&1
}

fill_with_uv() { # lock file
    local again=()
    if [[ -e $VENV/.coze-setup-unfinished ]]; then again=(--reinstall); fi
    [[ -x $VENV_PY ]] || "$UV" venv --quiet --python "$PY" "$VENV" >>"$SETUP_LOG" 2>&1 || return 1
    touch "$VENV/.coze-setup-unfinished"
    "$UV" pip sync --python "$VENV_PY" --require-hashes ${again[@]+"${again[@]}"} "$ROOT/$1" >>"$SETUP_LOG" 2>&1 || return 1
    rm -f "$VENV/.coze-setup-unfinished"
}

fill_with_pip() { # lock file
    local pip=("$VENV_PY" -m pip)
    if [[ ! -x $VENV_PY ]] && ! "$PY" -m venv "$VENV" >>"$SETUP_LOG" 2>&1; then
        rm -rf -- "$VENV"
        "$PY" -m venv --without-pip "$VENV" >>"$SETUP_LOG" 2>&1 || return 1
    fi
    "${pip[@]}" --version >/dev/null 2>&1 || "$VENV_PY" -m ensurepip >>"$SETUP_LOG" 2>&1 ||
        pip=("$PY" -m pip --python "$VENV_PY")
    touch "$VENV/.coze-setup-unfinished"
    PIP_USER=0 "${pip[@]}" install --require-hashes -r "$ROOT/$1" >>"$SETUP_LOG" 2>&1 || return 1
    rm -f "$VENV/.coze-setup-unfinished"
}
