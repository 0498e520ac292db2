#!/usr/bin/env bash
# vatra beside a real Synapse, or beside itself on a network that is cut: run.sh PATH_OF_VATRA [partition] [options of run.py or
# partition.py]... Installs Synapse from PyPI beside the build's cache.
set -eu
cd "$(dirname "$0")"
cache="${VATRA_CACHE:-$HOME/.cache/vatra}/interop"
../../scripts/tools.sh python
sum=$(sha256sum requirements.txt | cut -c1-16)
if [ ! -e "$cache/$sum/ready" ]; then
    rm -rf "${cache:?}/$sum"
    mkdir -p "$cache/$sum"
    python3 -m venv "$cache/$sum/venv"
    "$cache/$sum/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    touch "$cache/$sum/ready"
fi
vatra=$1 program=run.py
shift
if [ "${1:-}" = partition ]; then
    program=partition.py
    shift
fi
exec "$cache/$sum/venv/bin/python" "$program" "$vatra" "$cache/run" "$@"
