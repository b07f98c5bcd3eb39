#!/usr/bin/env bash
# From a clean clone to a table of results: makes .venv if need be, then runs a suite of experiments.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
    cat <<END
Usage: $0 [SUITE.yaml] [FLAG ...]

Installs lora-distill into .venv of this clone, if it is not there, and runs the experiments of a suite:
teacher, student and the same student without its teacher. What is finished is not done again.

SUITE.yaml  a suite file; default: configs/quickstart.yaml of this clone (a few minutes, no hub)
FLAG        settings for every experiment that win over the file's, such as --num_epochs 2 or --seed 7;
            all of them: .venv/bin/lora-distill suite --help

PYTHON=/path/to/python chooses the interpreter for .venv. Results go to outputs/ in the current folder.
END
}

suite=$clone/configs/quickstart.yaml
case "${1:-}" in
-h | --help)
    usage
    exit
    ;;
"" | -*) ;;
*)
    suite=$1
    shift
    ;;
esac
# Before minutes of installation, not after.
if [ ! -e "$suite" ]; then
    say "error: $suite: no such suite file. Those that come with the clone:" "$clone"/configs/*.yaml
    exit 2
fi
make_environment train
exec "$venv/bin/lora-distill" suite "$suite" "$@"
