#!/usr/bin/env bash
# Installs what the build misses, or says what to install.
set -eu
if ! ldconfig -p | grep -q 'libclang[-.]' && ! ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libclang-dev >/dev/null
    else
        echo "vatra needs libclang to build RocksDB's bindings: install libclang-dev (Debian) or clang-devel (Fedora)." >&2
        exit 1
    fi
fi
