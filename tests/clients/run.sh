#!/usr/bin/env bash
# Stock clients, a stock mail server, a stock identity provider and a stock S3 service, with the real server: run.sh PATH_OF_VATRA. Installs them beside the build's cache.
set -eu
cd "$(dirname "$0")"
cache="${VATRA_CACHE:-$HOME/.cache/vatra}/clients"
../../scripts/tools.sh node
venv=$(../../scripts/venv.sh clients requirements.txt)
js="$cache/js-$(cat js/package.json js/package-lock.json | sha256sum | cut -c1-16)"
if [ ! -e "$js/ready" ]; then
    rm -rf "$js"
    cp -r js "$js"
    (cd "$js" && npm ci --silent --no-audit --no-fund --ignore-scripts)
    touch "$js/ready"
fi
cp js/*.mjs "$js/"
code=0
timeout --kill-after=30 600 "$venv/bin/python" run.py "$1" "$js" || code=$?
timeout --kill-after=30 200 "$venv/bin/python" mail.py "$1" || code=$?
timeout --kill-after=30 120 "$venv/bin/python" sso.py "$1" || code=$?
timeout --kill-after=30 300 "$venv/bin/python" s3.py "$1" || code=$?
timeout --kill-after=30 200 "$venv/bin/python" large.py "$1" "$js" || code=$?
exit "$code"
