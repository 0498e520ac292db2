#!/usr/bin/env bash
# Installs what the build and the tests miss, or says what to install: tools.sh [libclang|python|node|chromium|iproute]...
# On Debian, as root, packages are installed; everywhere else one line tells what is missing.
set -eu

install() { # what it is for, Debian's package, a remedy elsewhere
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "tools: installing $2"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
    else
        echo "vatra needs $1: install $2 (Debian) or $3." >&2
        exit 1
    fi
}

# libclang-cpp, which other packages bring along, is another library and does not do.
libclang() {
    if ! ldconfig -p | grep -Eq 'libclang(-[0-9.]+)?\.so' && ! compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null; then
        install "libclang to build RocksDB's bindings" libclang-dev "clang-devel (Fedora)"
    fi
}

# With its module venv, which Debian packs apart.
python() {
    if ! python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        install "Python 3.11 or newer, with venv, for the checks and the clients" python3-venv "python3 (elsewhere)"
    fi
}

node() {
    if ! [ "$(command node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ] || ! command -v npm >/dev/null; then
        echo "vatra's client tests need Node.js 20 or newer with npm; Debian 12 has an older one. \`make check unit\` works without." >&2
        exit 1
    fi
}

# For the tests of the web client. CHROMIUM names one that is elsewhere.
chromium() {
    if ! command -v "${CHROMIUM:-chromium}" >/dev/null && ! command -v chromium-browser google-chrome >/dev/null; then
        install "a browser to test the web client" chromium "chromium (elsewhere)"
    fi
}

# For namespaces.
iproute() {
    command -v ip >/dev/null || install "ip to cut networks" iproute2 "iproute (Fedora)"
}

for tool in "${@:-libclang}"; do
    case "$tool" in
        libclang | python | node | chromium | iproute) "$tool" ;;
        *) echo "tools: unknown tool $tool" >&2 && exit 2 ;;
    esac
done
