#!/usr/bin/env bash
# Installs what the tests need besides npm's packages, from Debian's packages: real brokers, clients, a browser, and a
# compiler for the benchmark's load generator. Where that is not possible it says what to install; the tests that need it
# are then reported as skipped, or, with CI=true, fail.
set -euo pipefail

# command or file -> Debian package
declare -A needed=(
  [mosquitto]=mosquitto
  [mosquitto_pub]=mosquitto-clients
  [chromium-headless-shell]=chromium-headless-shell
  [curl]=curl
  [openssl]=openssl
  [gcc]=gcc
  [supervisord]=supervisor
  [lighttpd]=lighttpd
  [nginx]=nginx-light
  [systemd-analyze]=systemd
  [redis-server]=redis-server
  [haproxy]=haproxy
  [mmdebstrap]=mmdebstrap
  [lintian]=lintian
  [pebble]=pebble
  [caddy]=caddy
  [ip]=iproute2
  [iptables]=iptables
  [promtool]=prometheus
  [nats-server]=nats-server
  [rabbitmq-server]=rabbitmq-server
)
# What has no command: file -> Debian package
declare -A needed_files=(
  [/usr/lib/python3/dist-packages/paho/mqtt/client.py]=python3-paho-mqtt
  [/usr/lib/python3/dist-packages/aiosmtpd/smtp.py]=python3-aiosmtpd
  [/usr/include/openssl/ssl.h]=libssl-dev
  [/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1]=libfaketime
  [/usr/lib/lighttpd/mod_openssl.so]=lighttpd-mod-openssl
)

missing=()
for name in "${!needed[@]}"; do
  command -v "$name" >/dev/null || [ -x "/usr/sbin/$name" ] || missing+=("${needed[$name]}")
done
for file in "${!needed_files[@]}"; do
  [ -e "$file" ] || missing+=("${needed_files[$file]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else as_root=(false); fi
fi

if command -v apt-get >/dev/null && { [ ${#as_root[@]} -eq 0 ] || [ "${as_root[0]}" = sudo ]; }; then
  echo "test/setup.sh: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # Debian starts a broker on port 1883 with the package; the tests start their own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
  fi
  if "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
    exit 0
  fi
  echo "test/setup.sh: apt-get failed" >&2
fi

echo "test/setup.sh: please install: ${missing[*]}" >&2
if [ "${CI:-}" = true ]; then
  echo "test/setup.sh: with CI=true nothing may be missing" >&2
  exit 1
fi
echo "test/setup.sh: the tests that need them will be reported as skipped" >&2
