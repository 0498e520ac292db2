#!/usr/bin/env bash
# The credentials that vatra gives for calls, with a real TURN server (coturn): run.sh PATH_OF_VATRA. Ends with code 3 where coturn cannot be installed.
set -eu
PATH="$PATH:/usr/sbin"

# Debian's package would start a server of its own; this says that it may not.
install() {
    local policy=/usr/sbin/policy-rc.d made=
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=1; }
    local code=0
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends coturn; } >/dev/null 2>&1 || code=3
    [ -z "$made" ] || rm -f "$policy"
    return $code
}

if ! command -v turnserver >/dev/null || ! command -v turnutils_uclient >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 3
    echo "installing coturn"
    install || exit 3
fi
cd "$(dirname "$0")"
../../scripts/tools.sh python
exec python3 run.py "$1"
