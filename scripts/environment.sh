#!/usr/bin/env bash
# Makes .venv in the clone, with the package installed in it, or reuses the one that is there:
#
#     scripts/environment.sh            what training needs
#     . scripts/environment.sh          defines `make_environment EXTRAS` for the other scripts, and $clone
#
# PYTHON=/path/to/python chooses the interpreter; pip's own settings (PIP_*, pip.conf) hold as everywhere.
set -euo pipefail
unset CDPATH # it would take `cd` elsewhere

clone=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$clone/.venv
# Holds what .venv was made from. Written last, so that an interrupted installation is never taken for a whole one.
stamp=$venv/lora-distill.stamp
log=$venv/install.log
pythons="python3.11 python3.12 python3.13 python3" # the tests run with 3.11, so it comes first
cpu_index=https://download.pytorch.org/whl/cpu

say() { printf '%s\n' "$@" >&2; }

# make_environment EXTRAS, where EXTRAS is train or train,dev.
make_environment() {
    local extras=$1 existing chosen version python identity wanted
    lock
    existing=$(describe_python "$venv/bin/python" || true)
    chosen=$(choose_python "$existing") || exit 2
    version=${chosen%% *}
    python=${chosen#* }
    identity="$clone, Python $version"
    case "$(read_stamp)" in *"[train,dev]"*) extras=train,dev ;; esac
    wanted="$identity
[$extras] $(cat "$clone/pyproject.toml" "$clone/constraints.txt" | cksum)"
    if [ "${existing%% *}" != "$version" ] || [ "$(read_stamp)" != "$wanted" ]; then
        # A .venv without a stamp is the user's own: it is completed, not replaced.
        case "${existing%% *}, $(read_stamp | head -n 1)" in
        "$version, " | "$version, $identity") start_log ;;
        *) make_venv "$python" "$version" ;;
        esac
        install "$extras"
        printf '%s\n' "$wanted" >"$stamp"
    fi
    unlock
}

read_stamp() { cat "$stamp" 2>/dev/null || true; }

# Two installations at once would break each other; where there is no flock (macOS) that is left to the user.
lock() {
    exec 9<"$clone/pyproject.toml"
    if command -v flock >/dev/null && ! flock -n 9; then
        say "Waiting for another installation in $clone to end …"
        flock 9
    fi
}

unlock() { exec 9<&-; }

# Prints "VERSION PATH" of an interpreter that can make the environment. Of one in a virtual environment it
# prints what that was made from, for the environment itself may be about to be replaced.
describe_python() {
    "$1" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
import ensurepip, venv
print(sys.version.split()[0], getattr(sys, "_base_executable", sys.executable))' 2>/dev/null
}

# choose_python EXISTING, where EXISTING describes the interpreter of .venv, if there is one.
choose_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        describe_python "$PYTHON" && return
        say "error: PYTHON=$PYTHON is no Python 3.11 or later that can make virtual environments." \
            "Name another one, or unset PYTHON to have one looked for."
        return 2
    fi
    if [ -n "$1" ]; then
        printf '%s\n' "$1"
        return
    fi
    for name in $pythons; do
        describe_python "$name" && return
    done
    say "error: found no Python 3.11 or later that can make virtual environments (looked for: $pythons)." \
        "Install one, such as Debian's and Ubuntu's packages python3 and python3-venv, or name one:" \
        "PYTHON=/path/to/python3.11 $0"
    return 2
}

make_venv() {
    rm -rf "$venv"
    mkdir "$venv"
    start_log
    step "Making .venv with Python $2 …" "$1" -m venv "$venv"
}

start_log() {
    printf 'incomplete\n' >"$stamp"
    : >"$log"
}

install() {
    local torch
    torch="torch $(sed -n 's/^torch==//p' "$clone/constraints.txt")"
    say "Installing takes a minute or more, as the network goes, and about 2 GB on disk, with CUDA's torch more." \
        "To watch it: tail -f $(printf '%q' "$log")"
    # Some tools make environments without pip.
    in_clone "$venv/bin/python" -m ensurepip >>"$log" 2>&1 || true
    if [ "$(uname)" = Darwin ] || has_gpu; then
        step "Installing $torch …" pip_install torch
    elif cpu_index_answers; then
        # An extra index, not the only one: what torch needs still comes from the user's own, and of equal
        # versions pip takes the one with a local part, +cpu.
        step "Installing $torch (CPU build) …" pip_install --extra-index-url "$cpu_index" torch
    else
        step "Installing $torch (no answer from the index of CPU builds, so the one for all machines) …" \
            pip_install torch
    fi
    step "Installing lora-distill and what it needs …" pip_install -e ".[$1]"
}

has_gpu() {
    case "$(nvidia-smi -L 2>/dev/null)" in *GPU*) return 0 ;; esac
    return 1
}

# The alarm bounds what the timeout does not: looking up the name. The outer redirection is for the shell's own
# word about a process that the alarm ended.
cpu_index_answers() {
    "$venv/bin/python" -c '
import signal, sys, urllib.request
signal.alarm(5)
urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=5)' "$cpu_index"
} >/dev/null 2>&1

# PIP_USER=0: a pip.conf that asks for user installs would fail in a virtual environment.
pip_install() {
    in_clone env PIP_USER=0 "$venv/bin/python" -m pip install --no-input --disable-pip-version-check \
        -c constraints.txt "$@"
}

# Away from the caller's folder, whose files Python would import instead of its own.
in_clone() { (cd "$clone" && exec "$@"); }

# step MESSAGE COMMAND ARGUMENT...
step() {
    say "$1"
    shift
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        say "error: the installation failed; these are the last lines of $log." \
            "Mend what they name (network, room on the disk, pip's settings) and run the same command again."
        exit 1
    fi
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    make_environment train
fi
