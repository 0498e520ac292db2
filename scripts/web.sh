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

# What Vite runs on.
good='const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 22 || major * 100 + minor >= 2212 || (major == 20 && minor >= 19) ? 0 : 1)'
node -e "$good" 2>/dev/null && command -v npm >/dev/null || left_out "it needs Node.js 20.19, or 22.12 or newer, with npm"

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
