# vatra. The two commands a newcomer needs: `make run` and `make test`.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/vatra/target
TOOLS := $(HOME)/.cache/vatra
VATRA := $(CARGO_TARGET_DIR)/debug/vatra

.PHONY: run build test check fmt clippy deny unit clients bench tools

# A server to try out, on this machine only: http://127.0.0.1:8008, data under ./data.
run: build
	$(VATRA)

build: tools
	cargo build --workspace --bins

# Everything that must be green.
test: check unit clients complement-unit

check: fmt clippy deny

fmt:
	cargo fmt --all -- --check

clippy: tools
	cargo clippy --workspace --all-targets -- -D warnings

deny:
	@scripts/deny.sh

unit: tools
	cargo test --workspace

# Stock Matrix clients against the real binary.
clients: build
	@tests/clients/run.sh $(VATRA)

# Our own crates optimised; the dependencies are so already.
bench: tools
	CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo bench --profile dev -p vatra-store
	CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo build --bin vatra
	@scripts/bench.sh

# What the build needs and Debian does not bring along: libclang, for RocksDB's bindings.
tools:
	@scripts/tools.sh

include complement-tests/Makefile.inc
