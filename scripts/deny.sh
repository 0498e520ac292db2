#!/usr/bin/env bash
# Licences and banned crates, by what cargo itself says of the dependencies; no further tool is needed.
set -eu
cargo metadata --format-version 1 --locked | python3 "$(dirname "$0")/deny.py"
