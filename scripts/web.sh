#!/usr/bin/env bash
# Builds the web client into web/dist, from where it becomes part of the binary. Where Node.js or its packages cannot be had the server is built
# without it; WEB_REQUIRED=1 makes that an error. Does nothing while nothing has changed.
set -eu
cd "$(dirname "$0")/../web"

left_out() {
    echo "web: NOT BUILT: $1; the server is built without its web client"
    [ "${WEB_REQUIRED:-0}" = 0 ]
    exit
}

[ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ] && command -v npm >/dev/null ||
    left_out "it needs Node.js 20 or newer, with npm"

sum_of() { find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32; }

packages=$(sum_of package.json package-lock.json)
if [ "$(cat node_modules/.vatra 2>/dev/null)" != "$packages" ]; then
    npm ci --silent --no-audit --no-fund --ignore-scripts || left_out "its packages cannot be fetched"
    echo "$packages" >node_modules/.vatra
fi

built=$(sum_of package.json package-lock.json index.html compress.mjs ./*.ts ./*.config.js tsconfig.json src public)
if [ "$(cat node_modules/.vatra-built 2>/dev/null)" != "$built" ] || [ ! -e dist/index.html ]; then
    node_modules/.bin/vite build --logLevel warn
    node compress.mjs
    echo "$built" >node_modules/.vatra-built
fi
