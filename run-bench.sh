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

  (nothing)          what is judged: 35 to 40 minutes; writes benchmarks/results/ and, between their marks, the
                     tables of docs/*/benchmarks.md and three lines of the first page
  --quick            20 streams at once, in a burst and paced, half a minute; fails when a frame is lost, or ours
                     takes more than twice the CPU time per chat that a whole run allows, as a ratio to relay,
                     frame and passthrough
  --only A,B         some of: streams paced crowds doors variants latency whole reads flat memory redis cores;
                     and what runs only where it is named: capacity measures what users cost, for
                     scripts/capacity.py (five minutes), capacity-check holds ten thousand chats against what
                     that calculator says (a quarter hour)
  --rounds N         interleaved rounds (5; quick: 3); fewer than five judge little
  --seconds S        that a round is to take (3)
  --minutes M        of churn in the part "memory" (1; the whole claim needs 10)
  --stall S          seconds in which a reader reads nothing, in the part "memory" (28; the service gives up who
                     takes nothing for 30)
  --profile          where the time goes under 20, 200 and 500 paced streams instead: benchmarks/results/profile.md
                     and a flame graph of each (four minutes; needs ptrace)
  --tree DIR         measure another checkout's service with this benchmark: before and after
  --no-save          leave benchmarks/results/ and the pages as they are
  --keep-logs DIR    keep what all processes have written

Everything is started here on free ports and ended again. The status is 1 where a limit was missed.
TEXT
}

main() {
    local argument
    cd "$ROOT"
    for argument in "$@"; do
        case $argument in
            -h | --help) usage && exit 0 ;;
        esac
    done
    ensure_venv requirements-dev.lock
    exec "$VENV_PY" -m benchmarks "$@"
}

main "$@"
