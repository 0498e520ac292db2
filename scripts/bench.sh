#!/usr/bin/env bash
# Drives a freshly built vatra with a load generator: LOADGEN=path scripts/bench.sh [OUT.jsonl].
# The load generator takes --url, --label, --pid, --json and --scenario; docs/performance.md says what was measured with one.
set -eu
if [ -z "${LOADGEN:-}" ]; then
    echo "bench: set LOADGEN to a load generator's path to measure the whole server; only the store was measured." >&2
    exit 0
fi
out="${1:-bench.jsonl}"
folder=$(mktemp -d)
vatra="$CARGO_TARGET_DIR/debug/vatra"
cat >"$folder/vatra.toml" <<TOML
data_dir = "$folder/data"
media_dir = "$folder/media"
[client]
listen = "127.0.0.1:8108"
[registration]
open = true
[rate_limits]
enabled = false
[log]
filter = "warn"
TOML
"$vatra" --config "$folder/vatra.toml" >"$folder/log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null; rm -rf "$folder"' EXIT
for _ in $(seq 100); do
    curl --silent --fail http://127.0.0.1:8108/health/ready >/dev/null && break
    sleep 0.1
done
run() { "$LOADGEN" --url http://127.0.0.1:8108 --label vatra --pid "$pid" --json --scenario "$@" | tee -a "$out" | cut -c1-120; }
run versions --messages 5000
run register --users 200
run send_one --messages 500
run send_spread --messages 500 --rooms 20
run fanout --users 100 --messages 20
run initial_sync --rooms 50 --messages 20
run messages --messages 1000
run join --users 200
run state --users 100 --messages 200 --reps 20
run media --messages 50 --concurrency 4
run typing_receipts --users 50 --messages 1000
echo "figures in $out"
