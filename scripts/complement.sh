#!/usr/bin/env bash
# Complement's share of `make test`: complement.sh NAME SECONDS COMMAND... runs a stage, as stage.sh does, and says loudly where it
# cannot be run at all: without root, and where nobody hands out the suite's source. COMPLEMENT_REQUIRED=1 makes both errors.
set -u
name=$1

left_out() {
    if [ -n "${COMPLEMENT_REQUIRED:-}" ] && [ "$COMPLEMENT_REQUIRED" != 0 ]; then
        echo "== $name: NOT RUN, 0 tests: $1; COMPLEMENT_REQUIRED makes that an error"
        exit 1
    fi
    echo "== $name: NOT RUN, 0 tests: $1 (COMPLEMENT_REQUIRED=1 makes that an error)"
    exit 0
}

[ "$(id -u)" = 0 ] || left_out "it needs root for its namespaces"
"$(dirname "$0")/stage.sh" "$@"
code=$?
# The runner's word for: the module proxy does not hand out the suite. Every other fault has another code.
[ $code = 3 ] && left_out "the source of the suite cannot be fetched here"
exit $code
