#!/usr/bin/env bash
# Writes the lock files anew from pyproject.toml, without any index address, so that every mirror works:
# requirements.lock, requirements-otel.lock (with tracing: the image has it), requirements-dev.lock (everything). Arguments go to `uv lock`, for example: scripts/lock.sh --upgrade
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=scripts/common.sh
source "$ROOT/scripts/common.sh"
# shellcheck source=scripts/setup.sh
source "$ROOT/scripts/setup.sh"

export_lock() { # file, options
    local file=$1
    shift
    "$UV" export --quiet --frozen --no-emit-project --no-header \
        --format requirements-txt --output-file "$file.new" "$@" >/dev/null
    if grep -n '://' "$file.new"; then
        rm -f "$file.new"
        die "$file would hold an address (the lines above)" "Only names, versions and hashes belong into it."
    fi
    { printf '# Written by scripts/lock.sh from pyproject.toml; do not edit.\n' && cat "$file.new"; } >"$file"
    rm -f "$file.new"
}

cd "$ROOT"
make_run_dir
find_python
: >"$SETUP_LOG"
read_pip_settings
find_uv || setup_failed
"$UV" lock "$@"
export_lock requirements.lock --no-dev
export_lock requirements-otel.lock --no-dev --group otel
export_lock requirements-dev.lock --all-groups
say "Written: requirements.lock, requirements-otel.lock, requirements-dev.lock. Now: ./run-tests.sh"
