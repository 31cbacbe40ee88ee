# shellcheck shell=bash
# Shared by run-service.sh and run-tests.sh; sourced with ROOT set. Words, places, the lock.

RUN_DIR="${COZE_RUN_DIR:-$ROOT/.run}" # a container has its own: the project may be mounted read-only there
VENV="${UV_PROJECT_ENVIRONMENT:-.venv}"
[[ $VENV == /* ]] || VENV="$ROOT/$VENV"
# shellcheck disable=SC2034  # used by those who source this
VENV_PY="$VENV/bin/python"
PY=""  # a Python of 3.11 or newer to ask questions with: see find_python

say() { printf '%s\n' "$*"; }
warn() { printf 'WARNING: %s\n' "$*" >&2; }
die() {
    printf 'ERROR: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

make_run_dir() {
    if ! mkdir -p "$RUN_DIR" || ! chmod 700 "$RUN_DIR"; then
        die "cannot write $RUN_DIR" "Run this as the owner of the checkout."
    fi
}

show_log_end() {
    [[ -s $1 ]] || return 0
    printf -- '--- the last lines of %s\n' "${1#"$ROOT/"}" >&2
    tail -n "${2:-20}" "$1" >&2
    printf -- '---\n' >&2
}

# The first Python that is new enough. Environments of other projects that happen to be active are
# looked through to the Python that they were made from. Nothing is downloaded.
find_python() {
    [[ -n $PY ]] && return 0
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        PY=$("$candidate" -c 'import sys
if sys.version_info >= (3, 11):
    print(getattr(sys, "_base_executable", None) or sys.executable)' 2>/dev/null) || PY=""
        [[ -n $PY && -x $PY ]] && return 0
        PY=""
    done
    die "no Python 3.11 or newer found" \
        "Install one (for example: apt install python3 python3-venv), or set PYTHON=/path/to/python3." \
        "请先安装 Python 3.11 或更新的版本，或用 PYTHON=/path/to/python3 指定。"
}

# Takes a lock that the system gives back when this shell ends, however it ends.
# Children must not inherit it: launch.py closes it, tmux is called with it closed.
take_lock() { # name, seconds
    exec 9>>"$RUN_DIR/$1.lock"
    "$PY" "$ROOT/scripts/process.py" lock 9 "$2"
}
drop_lock() { exec 9>&-; }
