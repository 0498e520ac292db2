#!/usr/bin/env bash
# Complement's share of `make test`: complement.sh NAME SECONDS COMMAND... runs a stage as optional.sh does. Code 3 is the runner's word for:
# the module proxy does not hand out the suite. Every other fault has another code.
exec "$(dirname "$0")/optional.sh" --root COMPLEMENT_REQUIRED "the source of the suite cannot be fetched here" "$@"
