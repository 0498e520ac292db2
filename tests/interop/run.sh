#!/usr/bin/env bash
# vatra beside a real Synapse, or beside itself on a network that is cut: run.sh PATH_OF_VATRA [partition] [options of run.py or
# partition.py]... Installs Synapse from PyPI beside the build's cache; where that cannot be done, it ends with code 3.
set -eu
cd "$(dirname "$0")"
venv=$(../../scripts/venv.sh interop requirements.txt) || exit 3
vatra=$1 program=run.py
shift
if [ "${1:-}" = partition ]; then
    program=partition.py
    shift
    ../../scripts/tools.sh iproute
fi
exec "$venv/bin/python" "$program" "$vatra" "${VATRA_CACHE:-$HOME/.cache/vatra}/interop/run" "$@"
