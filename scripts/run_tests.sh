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

ruff check
ruff format --check
mypy
shellcheck -x scripts/*.sh
if [ $# -eq 0 ]; then
    set -- --cov=lora_distill --cov-report=term-missing:skip-covered --cov-fail-under=90
fi
exec pytest --numprocesses auto --dist loadfile "$@"
