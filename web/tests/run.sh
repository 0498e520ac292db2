#!/usr/bin/env bash
# The web client in Debian's chromium against the real server that it is part of: run.sh PATH_OF_VATRA. Code 3: it was not built, or there is no chromium.
set -eu
cd "$(dirname "$0")/.."
[ -e dist/index.html ] || exit 3
../scripts/tools.sh chromium || exit 3
code=0
npm run --silent check || code=$?
timeout --kill-after=30 800 node tests/run.mjs "$1" || code=$?
exit "$code"
