#!/usr/bin/env bash
# Builds the Debian package, installs it in a new Debian 13 as users do, starts it, and purges it: nothing of it may be left.
# Needs root, mmdebstrap and lintian (Debian packages), and the mirror of Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
for program in mmdebstrap lintian; do command -v "$program" >/dev/null || missing+=("$program"); done
[ "$(id -u)" -eq 0 ] || missing+=('root')
if [ ${#missing[@]} -gt 0 ]; then
  echo "scripts/test-deb.sh: the Debian package is not tested: needs ${missing[*]}" >&2
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi

directory=$(mktemp -d)
pid=
cleanup() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  rm -rf --one-file-system "$directory"
}
trap cleanup EXIT
root=$directory/root
package=${1:-$(bash scripts/build-deb.sh)}
lintian --allow-root --fail-on error "$package" >"$directory/lintian" || { grep ^E: "$directory/lintian" >&2; exit 1; }
mmdebstrap --quiet --variant=apt --include=nodejs,adduser trixie "$root" >/dev/null

# Files and accounts, without the caches and logs of dpkg and the backups of useradd.
state() {
  (cd "$root" && find . -xdev \( -path './var/lib/dpkg*' -o -path './var/log*' -o -path './var/cache*' -o -path './etc/*-' -o -path ./etc/.pwd.lock -o -path './run/*' -o -path './tmp/*' \) -prune -o -print | sort)
  cat "$root/etc/passwd" "$root/etc/group"
}
state >"$directory/before"
cp "$package" "$root/tmp/mqway.deb"
chroot "$root" dpkg --install /tmp/mqway.deb >/dev/null
rm "$root/tmp/mqway.deb"
as_mqway=(env -i PATH=/usr/bin:/bin "$(command -v chroot)" --userspec=mqway:mqway "$root")
"${as_mqway[@]}" mqway check --config /etc/mqway/mqway.yaml >/dev/null

# The built-in broker, LevelDB and the pages: what is pruned from the modules must not be missing.
"${as_mqway[@]}" sh -c 'cd /var/lib/mqway && MQWAY_HTTP_PORT=0 MQWAY_HTTPS_PORT=0 MQWAY_MQTT_PORT=0 exec mqway --config /etc/mqway/mqway.yaml --log-format json' >"$directory/log" 2>&1 &
pid=$!
for _ in $(seq 300); do
  url=$(sed -n 's/.*"mqway is ready: \(http[^ "]*\).*/\1/p' "$directory/log")
  [ -n "$url" ] && break
  kill -0 "$pid" || { cat "$directory/log" >&2; exit 1; }
  sleep 0.1
done
curl --fail --silent --show-error "$url/vendor/mqtt.min.js" >/dev/null
curl --fail --silent --show-error "$url/v1/publish?topic=a&retain=true" -d 'from the package' >/dev/null
kill "$pid"
wait "$pid"
pid=
[ -e "$root/var/lib/mqway/broker" ] && [ -e "$root/var/lib/mqway/journal" ]

chroot "$root" dpkg --remove mqway >/dev/null
[ -e "$root/etc/mqway/mqway.yaml" ] && [ -e "$root/var/lib/mqway/broker" ]
chroot "$root" dpkg --purge mqway >/dev/null
state | diff "$directory/before" - || { echo 'scripts/test-deb.sh: the purge has left that' >&2; exit 1; }
echo "$(basename "$package") installs, serves and purges"
