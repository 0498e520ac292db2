#!/usr/bin/env bash
# A Python environment beside the build's cache: venv.sh NAME REQUIREMENTS makes it, anew when the requirements change, and prints its folder.
set -eu
"$(dirname "$0")/tools.sh" python >&2
cache="${VATRA_CACHE:-$HOME/.cache/vatra}/$1"
folder="$cache/venv-$(sha256sum <"$2" | cut -c1-16)"
if [ ! -e "$folder/ready" ]; then
    rm -rf "$folder"
    mkdir -p "$cache"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$2" >&2
    touch "$folder/ready"
fi
echo "$folder"
