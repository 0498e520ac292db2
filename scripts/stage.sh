#!/usr/bin/env bash
# One stage of `make test`: stage.sh NAME SECONDS COMMAND... Says when it begins, how long it took, and ends it when it hangs.
set -u
name=$1 limit=$2
shift 2
# At a terminal the command stays in the foreground, so that Ctrl-C reaches it.
options=(--kill-after=30)
[ -t 0 ] && options+=(--foreground)
echo "== $name"
begin=$SECONDS
timeout "${options[@]}" "$limit" "$@"
code=$?
case $code in
    0) echo "== $name: good after $((SECONDS - begin)) s" ;;
    124 | 137) echo "== $name: ended after $((SECONDS - begin)) s; its limit is $limit s" ;;
    *) echo "== $name: failed with code $code after $((SECONDS - begin)) s" ;;
esac
exit $code
