#!/usr/bin/env bash
# Drives a freshly built vatra, and then Synapse on the same machine, with a load generator: LOADGEN=PATH scripts/bench.sh [OUT.jsonl].
# The load generator takes --url, --label, --pid, --json and --scenario; docs/performance.md says what was measured with one.
# Synapse comes from PyPI, as for tests/interop; with SYNAPSE=none vatra is driven alone. VATRA is another binary than the one just built.
set -euo pipefail
if [ -z "${LOADGEN:-}" ]; then
    echo "bench: set LOADGEN to a load generator's path to measure the whole server; only the store was measured." >&2
    exit 0
fi
out="${1:-bench.jsonl}"
binary="${VATRA:-$CARGO_TARGET_DIR/debug/vatra}"
python=
[ "${SYNAPSE:-}" = none ] || python="$(scripts/venv.sh interop tests/interop/requirements.txt)/bin/python"
folder=$(mktemp -d)
pid=
stop() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    [ -z "$pid" ] || wait "$pid" 2>/dev/null || true
    pid=
}
trap 'stop; rm -rf "$folder"' EXIT

vatra() {
    cat >"$folder/vatra.toml" <<TOML
data_dir = "$folder/data"
media_dir = "$folder/media"
[client]
listen = "127.0.0.1:8108"
[registration]
open = true
[rate_limits]
enabled = false
[presence]
enabled = false
[log]
filter = "warn"
TOML
    begin=$(now)
    "$binary" --config "$folder/vatra.toml" >"$folder/vatra.log" 2>&1 &
    pid=$!
    up http://127.0.0.1:8108 && idle vatra && drive vatra http://127.0.0.1:8108
    stop
}

synapse() {
    mkdir "$folder/synapse"
    cat >"$folder/synapse/homeserver.yaml" <<YAML
server_name: localhost
report_stats: false
signing_key_path: $folder/synapse/signing.key
media_store_path: $folder/synapse/media
log_config: $folder/synapse/log.yaml
database: {name: sqlite3, args: {database: $folder/synapse/homeserver.db}}
listeners: [{port: 8109, type: http, bind_addresses: [127.0.0.1], resources: [{names: [client]}]}]
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
presence: {enabled: false}
trusted_key_servers: []
rc_message: &often {per_second: 100000, burst_count: 100000}
rc_registration: *often
rc_login: {address: *often, account: *often, failed_attempts: *often}
rc_joins: {local: *often, remote: *often}
rc_joins_per_room: *often
rc_invites: {per_room: *often, per_user: *often, per_issuer: *often}
rc_room_creation: *often
YAML
    echo '{version: 1, root: {level: ERROR}}' >"$folder/synapse/log.yaml"
    (cd "$folder/synapse" && "$python" -m synapse.app.homeserver --config-path homeserver.yaml --generate-keys)
    begin=$(now)
    (cd "$folder/synapse" && exec "$python" -m synapse.app.homeserver --config-path homeserver.yaml) >"$folder/synapse.log" 2>&1 &
    pid=$!
    up http://127.0.0.1:8109 && idle synapse && drive synapse http://127.0.0.1:8109
    stop
}

now() { date +%s%3N; }

up() {
    for _ in $(seq 3000); do
        if curl --silent --fail "$1/_matrix/client/versions" >/dev/null; then
            took=$(($(now) - begin))
            return
        fi
        sleep 0.01
    done
    echo "bench: $1 does not answer" >&2
    exit 1
}

# How long until the first answer, and the memory of a server with an empty store that nobody asks anything. The aim: 300 ms, 60 MB.
idle() {
    sleep 3
    local memory
    memory=$(awk '/^VmRSS:/ { print int($2 / 1024) }' "/proc/$pid/status")
    echo "{\"label\":\"$1\",\"scenario\":\"idle\",\"start_ms\":$took,\"rss_mb\":$memory}" | tee -a "$out"
}

drive() {
    local label=$1 url=$2
    run() { "$LOADGEN" --url "$url" --label "$label" --pid "$pid" --json --scenario "$@" | tee -a "$out" | cut -c1-120; }
    run versions --messages 5000
    run register --users 200
    run send_one --messages 500 --repeat 3
    run send_spread --messages 500 --rooms 20 --repeat 3
    run fanout --users 10 --messages 20
    run fanout --users 100 --messages 20
    run fanout_burst --users 100 --messages 50
    run initial_sync --rooms 10 --messages 20
    run initial_sync --rooms 50 --messages 20
    run messages --messages 1000
    run join --users 200
    run state --users 100 --messages 200 --reps 20
    run media --messages 50 --concurrency 4
    run typing_receipts --users 50 --messages 1000
    run e2ee --users 50 --messages 300
}

vatra
[ -z "$python" ] || synapse
echo "figures in $out"
