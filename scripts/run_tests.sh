#!/usr/bin/env bash
# Lints, types and tests; makes .venv if need be. Arguments go to pytest, which then asks for no coverage:
#
#     scripts/run_tests.sh                    all of it, as a change must pass it
#     scripts/run_tests.sh -m "not slow"      without the tests that train in processes of their own
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

make_environment train,dev
cd "$clone"
PATH=$venv/bin:$PATH

# The report is looked at in a browser; where there is none and none can be had, that test is skipped.
if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "Installing chromium …"
    { apt-get update && apt-get install --yes --no-install-recommends chromium; } >"$clone/.venv/chromium.log" 2>&1 ||
        say "It could not be installed: see .venv/chromium.log"
fi

ruff check
ruff format --check
mypy
shellcheck -x scripts/*.sh
if [ $# -eq 0 ]; then
    set -- --cov=lora_distill --cov-report=term-missing:skip-covered --cov-fail-under=90
fi
exec pytest --numprocesses auto --dist loadfile --durations 30 "$@"
