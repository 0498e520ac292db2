#!/usr/bin/env bash
# A stage that cannot be run everywhere: optional.sh [--root] VARIABLE WHY NAME SECONDS COMMAND... runs it as stage.sh does, and says loudly
# where it is left out: without root if it needs that, and WHY where the command ends with code 3. VARIABLE=1 makes both errors.
set -u
root=
if [ "$1" = --root ]; then
    root=1
    shift
fi
variable=$1 why=$2 name=$3
shift 2

left_out() {
    if [ -n "${!variable:-}" ] && [ "${!variable}" != 0 ]; then
        echo "== $name: NOT RUN, 0 tests: $1; $variable makes that an error"
        exit 1
    fi
    echo "== $name: NOT RUN, 0 tests: $1 ($variable=1 makes that an error)"
    exit 0
}

[ -z "$root" ] || [ "$(id -u)" = 0 ] || left_out "it needs root for its namespaces"
"$(dirname "$0")/stage.sh" "$@"
code=$?
[ $code = 3 ] && left_out "$why"
exit $code
