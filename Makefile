# vatra. The two commands a newcomer needs: `make run` and `make test`.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/vatra/target
VATRA := $(CARGO_TARGET_DIR)/debug/vatra
# Name and seconds: what takes longer hangs. The first of them compiles RocksDB, which takes two cores a quarter of an hour.
STAGE := scripts/stage.sh
NO_SYNAPSE := "Synapse cannot be installed here"
NO_WEB := "the web client was not built, or chromium cannot be installed here"

.PHONY: run build web test check fmt clippy deny unit clients turn web-held interop-held complement-held interop partition fuzz-api bench tools
.NOTPARALLEL:

# A server to try out, on this machine only: http://127.0.0.1:8008, data under ./data.
run: build
	$(VATRA)

build: tools web
	cargo build --workspace --bins

# The web client, which becomes part of the binary. Where there is no Node.js 20 the server is built without it.
web:
	@scripts/web.sh

# Everything that must be green.
test: check unit clients turn web-held interop-held complement-held

check: fmt clippy deny

fmt:
	@$(STAGE) fmt 120 cargo fmt --all -- --check

clippy: tools web
	@$(STAGE) clippy 3000 cargo clippy --workspace --all-targets -- -D warnings

# Licences, banned crates and sources: deny.toml.
deny:
	@$(STAGE) deny 600 scripts/deny.sh

unit: tools web
	@$(STAGE) unit 3000 cargo test --workspace

# Stock Matrix clients against the real binary.
clients: build
	@$(STAGE) clients 900 tests/clients/run.sh $(VATRA)

# Credentials for calls with a real TURN server. Left out where coturn cannot be installed.
turn: build
	@scripts/optional.sh TURN_REQUIRED "coturn cannot be installed here" turn 180 tests/turn/run.sh $(VATRA)

# The web client in a browser. Left out where it was not built, and where there is no chromium.
web-held: build
	@scripts/optional.sh WEB_REQUIRED $(NO_WEB) "web client" 900 web/tests/run.sh $(VATRA)

# Some of what `interop` and `partition` play: random rooms of all versions in vatra and in Synapse, and one network that is cut for each of the
# newest versions. Left out where Synapse cannot be installed, and the latter without root; docs/conformance.md.
interop-held: build
	@scripts/optional.sh INTEROP_REQUIRED $(NO_SYNAPSE) "random rooms" 600 tests/interop/run.sh $(VATRA) --held --only none --dags 20
	@scripts/optional.sh --root INTEROP_REQUIRED $(NO_SYNAPSE) "cut networks" 300 tests/interop/run.sh $(VATRA) partition --held --schedules 1

# The instrument's own tests, then Matrix's conformance suite: what it has found good before must stay so. The runner ends by itself
# after 25 minutes, with a summary.
complement-held: build complement-tools
	@scripts/complement.sh "complement's runner" 900 $(MAKE) --no-print-directory complement-unit
	@scripts/complement.sh complement 1800 $(COMPLEMENT) -check

# A real Synapse in the same rooms. Takes minutes; goes on where it was interrupted.
interop: build
	@$(STAGE) interop 5400 tests/interop/run.sh $(VATRA)

# Three servers in network namespaces that are cut and healed. Needs root.
partition: build
	@$(STAGE) partition 3600 tests/interop/run.sh $(VATRA) partition

# Requests that Matrix's OpenAPI files call for, and worse ones: make fuzz-api MATRIX_SPEC=FOLDER, a clone of the specification's repository.
fuzz-api: build
	@$(STAGE) fuzz-api 7200 tests/fuzz/run.sh $(VATRA) $(FUZZ)

# Our own crates optimised; the dependencies are so already.
bench: tools
	CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo bench --profile dev -p vatra-store
	CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test -p vatra --test blackbox -- --ignored --nocapture --test-threads 1 large_room many_away
	CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo build --bin vatra
	@scripts/bench.sh

# What the build needs and Debian does not bring along: libclang, for RocksDB's bindings.
tools:
	@scripts/tools.sh libclang

include complement-tests/Makefile.inc
