#!/usr/bin/env bash
# Installs what the runner needs beside Go, or says what to install.
set -eu
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
if ! command -v go >/dev/null; then
    echo "complement: Go 1.25 or later is needed: https://go.dev/dl/" >&2
    exit 1
fi
