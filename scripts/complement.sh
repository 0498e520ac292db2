#!/usr/bin/env bash
# Complement's share of `make test`: complement.sh COMMAND... runs the check of expected.txt, where that can be done, and says where not.
set -u
if [ "$(id -u)" != 0 ]; then
    echo "complement: left out, since it needs root for its namespaces"
    exit 0
fi
"$@"
code=$?
# The runner's word for: the module proxy does not hand out the suite, so that nothing could be tested.
if [ $code = 3 ]; then
    echo "complement: left out, since its source is not to be had here; none of its tests ran"
    exit 0
fi
exit $code
