#!/usr/bin/env bash
# Installs what the runner needs beside Go, or says what to install.
set -eu
cd "$(dirname "$0")"
needed=$(sed -n 's/^go //p' go.mod)
needed=${needed%.0}

# The version of a Go that `go version` tells of, or nothing.
version() { sed -nE 's/.*\bgo([0-9]+(\.[0-9]+)+).*/\1/p' | head -n 1; }
is_enough() { [ -n "$1" ] && [ "$(printf '%s\n' "$needed" "$1" | sort -V | head -n 1)" = "$needed" ]; }

if ! command -v go >/dev/null; then
    echo "complement: Go is missing: $needed or later is needed (https://go.dev/dl/)" >&2
    exit 1
fi
# Here, beside go.mod, a Go that may do so takes a newer one than itself.
if ! is_enough "$(go version 2>/dev/null | version || true)"; then
    own=$(cd / && GOTOOLCHAIN=local go version 2>&1 | version || true)
    echo "complement: Go is too old: $needed or later is needed (https://go.dev/dl/), and $(command -v go) is ${own:-of no version that it tells}" >&2
    exit 1
fi

missing=()
command -v ip >/dev/null || missing+=(iproute2)
command -v openssl >/dev/null || missing+=(openssl)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        echo "complement: install ${missing[*]}" >&2
        exit 1
    fi
fi
