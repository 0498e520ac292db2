#!/usr/bin/env bash
# The client-server API of the real server, by requests that the specification's OpenAPI files call for: run.sh PATH_OF_VATRA [OPTIONS OF run.py].
# MATRIX_SPEC names a folder with the specification's data (its `data/api/client-server/*.yaml`), such as a clone of its repository.
set -eu
vatra=$1
shift
if [ -z "${MATRIX_SPEC:-}" ] || ! ls "$MATRIX_SPEC"/data/api/client-server/*.yaml >/dev/null 2>&1; then
    echo "MATRIX_SPEC must name a folder with Matrix's specification, in which data/api/client-server holds its OpenAPI files:" >&2
    echo "a clone of the repository matrix-org/matrix-spec, at the version that the README names. It is ${MATRIX_SPEC:-not set}." >&2
    exit 2
fi
spec=$(cd "$MATRIX_SPEC" && pwd)
cd "$(dirname "$0")"
venv=$(../../scripts/venv.sh fuzz requirements.txt)
exec "$venv/bin/python" run.py "$vatra" "$spec" "$@"
