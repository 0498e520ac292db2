#!/usr/bin/env bash
# Stock clients, a stock mail server and a stock identity provider, with the real server: run.sh PATH_OF_VATRA. Installs them beside the build's cache.
set -eu
cd "$(dirname "$0")"
cache="${VATRA_CACHE:-$HOME/.cache/vatra}/clients"
../../scripts/tools.sh python node
mkdir -p "$cache"
sum=$(cat requirements.txt js/package.json js/package-lock.json | sha256sum | cut -c1-16)
if [ ! -e "$cache/$sum/ready" ]; then
    rm -rf "${cache:?}/$sum"
    mkdir -p "$cache/$sum"
    python3 -m venv "$cache/$sum/venv"
    "$cache/$sum/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    cp -r js "$cache/$sum/js"
    (cd "$cache/$sum/js" && npm ci --silent --no-audit --no-fund --ignore-scripts)
    touch "$cache/$sum/ready"
fi
cp js/*.mjs "$cache/$sum/js/"
code=0
timeout --kill-after=30 600 "$cache/$sum/venv/bin/python" run.py "$1" "$cache/$sum/js" || code=$?
timeout --kill-after=30 200 "$cache/$sum/venv/bin/python" mail.py "$1" || code=$?
timeout --kill-after=30 120 "$cache/$sum/venv/bin/python" sso.py "$1" || code=$?
exit "$code"
