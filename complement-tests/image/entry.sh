#!/bin/sh
# Starts vatra as one of Complement's homeservers. Complement sets SERVER_NAME, puts its certificate authority into
# /complement/ca, and expects the client-server API on port 8008 and the federation API, over TLS, on port 8448.
# The image made by the Dockerfile beside this file and the containers of the shim run this same script.
set -eu
: "${SERVER_NAME:?Complement names the server in SERVER_NAME}"
ca=/complement/ca
home=/complement/vatra
mkdir -p "$home"

# A certificate for the server's name, signed by the suite's authority; the same after a restart.
if ! cmp -s "$ca/ca.crt" "$home/issuer.crt"; then
    cat >"$home/openssl.cnf" <<CONFIG
[req]
distinguished_name = name
x509_extensions = leaf
prompt = no
[name]
CN = $SERVER_NAME
[leaf]
subjectAltName = DNS:$SERVER_NAME
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
CONFIG
    openssl req -config "$home/openssl.cnf" -x509 -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -days 365 \
        -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$home/tls.key" -out "$home/tls.crt" 2>"$home/openssl.log" ||
        { cat "$home/openssl.log" >&2; exit 1; }
    cp "$ca/ca.crt" "$home/issuer.crt"
fi

# Registrations of application services, which the suite copies into the container.
files=
for file in /complement/appservice/*.yaml; do
    if [ -e "$file" ]; then
        files="$files\"$file\", "
    fi
done

cat >"$home/vatra.toml" <<CONFIG
server_name = "$SERVER_NAME"
data_dir = "$home/data"
media_dir = "$home/media"

[client]
listen = "0.0.0.0:8008"

[federation]
enabled = true
listen = "0.0.0.0:8448"
tls_cert = "$home/tls.crt"
tls_key = "$home/tls.key"
trusted_ca = "$ca/ca.crt"
# The suite's servers are containers of one network, found by their hosts files.
allowed_networks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
# A test reads the name of a device from another server.
share_device_names = true

[registration]
open = true
shared_secret = "complement"
allow_open_on_public_address = true

# Many tests give a room's maker a power level, which room version 12 forbids.
[rooms]
default_version = "10"

[rate_limits]
enabled = false

[presence]
enabled = true

[server_notices]
localpart = "_server"

[url_preview]
enabled = true
# The page that a test has shown is on the host of the containers.
allow_loopback = true
allowed_networks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]

[media]
legacy_unauthenticated = true

[appservices]
files = [$files]
CONFIG

exec vatra --config "$home/vatra.toml"
