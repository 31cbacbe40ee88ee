#!/usr/bin/env bash
# Sets up, then measures the service against others on this machine. See usage below.
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/common.sh
source "$ROOT/scripts/common.sh"
# shellcheck source=scripts/setup.sh
source "$ROOT/scripts/setup.sh"

usage() {
    cat <<'TEXT'
Usage: ./run-bench.sh [options]

  (nothing)          all parts: about half an hour; writes benchmarks/results/
  --quick            20 streams at once, in a burst and paced, half a minute; fails when ours takes more CPU time
                     per chat than its limit as a ratio to frame and passthrough, or a frame is lost
  --only A,B         some of: streams paced crowds doors variants latency whole reads flat memory redis capacity;
                     capacity measures what users cost, for scripts/capacity.py, and only where it is named
                     runs capacity-check: ten thousand chats against what that calculator says (a quarter hour)
  --rounds N         interleaved rounds (5; quick: 3)
  --seconds S        that a round is to take (3)
  --minutes M        of churn in the part "memory" (1; the whole claim needs 10)
  --stall S          seconds in which a reader reads nothing, in the part "memory" (60)
  --profile          a flame graph of ours under 20 streams instead: benchmarks/results/profile.svg
  --tree DIR         measure another checkout's service with this benchmark: before and after
  --no-save          leave benchmarks/results/ as it is
  --keep-logs DIR    keep what all processes have written

Everything is started here on free ports and ended again. The status is 1 where a limit was missed.
TEXT
}

# LiteLLM and py-spy are no part of the project: each in an environment of its own under .run, the newest
# there is when it is made. Where that fails, the benchmark goes on without it.
side_environment() { # directory, package
    local directory=$1 package=$2
    if [[ ! -f $directory/.complete ]]; then
        say "Setting up ${directory#"$ROOT/"} with the newest $package ..."
        : >"$SETUP_LOG"
        read_pip_settings
        if find_uv && "$UV" venv --quiet --clear --python "$PY" "$directory" >>"$SETUP_LOG" 2>&1 &&
            "$UV" pip install --quiet --python "$directory/bin/python" "$package" >>"$SETUP_LOG" 2>&1; then
            touch "$directory/.complete"
        else
            warn "$package cannot be installed here; see ${SETUP_LOG#"$ROOT/"}"
        fi
    fi
}

needs_peer() {
    local argument last=""
    for argument in "$@"; do
        if [[ $argument == --quick || $argument == --profile ]]; then return 1; fi
        if [[ $last == --only && $argument != *streams* ]]; then return 1; fi
        if [[ $argument == --only=* && $argument != *streams* ]]; then return 1; fi
        last=$argument
    done
}

main() {
    local argument
    cd "$ROOT"
    for argument in "$@"; do
        case $argument in
            -h | --help) usage && exit 0 ;;
            --profile) local profile=yes ;;
        esac
    done
    ensure_venv requirements-dev.lock
    if needs_peer "$@"; then
        side_environment "$RUN_DIR/peer-venv" "litellm[proxy]"
        export BENCH_PEER="$RUN_DIR/peer-venv"
    fi
    if [[ ${profile:-no} == yes ]]; then
        side_environment "$RUN_DIR/profile-venv" py-spy
        export BENCH_PROFILER="$RUN_DIR/profile-venv/bin/py-spy"
    fi
    exec "$VENV_PY" -m benchmarks "$@"
}

main "$@"
