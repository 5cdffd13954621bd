#!/usr/bin/env bash
# Builds the image of Containerfile on a new Debian 13 with this machine's npm, so that no registry of images is needed, and runs it as process 1 without
# rights: it must serve, be healthy, and end with 0 after SIGTERM. Needs root, mmdebstrap and buildah (Debian packages). Takes some two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=$(mktemp -d)
export CONTAINERS_STORAGE_CONF=$directory/storage.conf
printf '[storage]\ndriver = "vfs"\nrunroot = "%s/run"\ngraphroot = "%s/graph"\n' "$directory" "$directory" >"$CONTAINERS_STORAGE_CONF"
pid=
cleanup() {
  # unshare ignores SIGTERM, and ends with what it has started.
  [ -z "$pid" ] || pkill -KILL --parent "$pid" || true
  buildah umount --all >/dev/null 2>&1 || true
  rm -rf --one-file-system "$directory"
}
trap cleanup EXIT

base=$directory/base
mmdebstrap --quiet --variant=apt --include=nodejs,ca-certificates trixie "$base" >/dev/null
mkdir -p "$base/usr/local/lib/node_modules" "$base/usr/local/bin"
cp -r "$(npm root --global)/npm" "$base/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$base/usr/local/bin/npm"
container=$(buildah from scratch)
buildah add --quiet "$container" "$base" / >/dev/null
if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then
  buildah copy --quiet "$container" "$NODE_EXTRA_CA_CERTS" /usr/local/share/extra.pem >/dev/null
  buildah config --env NODE_EXTRA_CA_CERTS=/usr/local/share/extra.pem "$container"
fi
buildah commit --quiet "$container" localhost/node >/dev/null
buildah rm "$container" >/dev/null

buildah bud --quiet --format docker --isolation chroot --pull-never --build-arg NODE_IMAGE=localhost/node --tag mqway --file Containerfile . >/dev/null
container=$(buildah from --pull-never localhost/mqway)
tree=$(buildah mount "$container")
in_image=(env -i PATH=/usr/local/bin:/usr/bin:/bin MQWAY_HTTP_PORT=0 MQWAY_HTTPS_PORT=0 MQWAY_MQTT_PORT=0 unshare --pid --fork --kill-child "$(command -v chroot)" --userspec=65532:65532 "$tree")
"${in_image[@]}" sh -c 'cd /var/lib/mqway && exec node /opt/mqway/dist/cli.js serve --config /etc/mqway/mqway.yaml --log-format json' >"$directory/log" 2>&1 &
pid=$!
for _ in $(seq 300); do
  url=$(sed -n 's/.*"mqway is ready: \(http[^ "]*\).*/\1/p' "$directory/log")
  [ -n "$url" ] && break
  kill -0 "$pid" || { cat "$directory/log" >&2; exit 1; }
  sleep 0.1
done
curl --fail --silent --show-error "$url/vendor/mqway.js" >/dev/null
health=$(sed -n 's/^HEALTHCHECK.* CMD //p' Containerfile | node -e "console.log(JSON.parse(require('fs').readFileSync(0, 'utf8'))[2])")
"${in_image[@]}" node -e "${health//http:\/\/127.0.0.1:8080/${url/localhost/127.0.0.1}}"
first=$(pgrep --parent "$pid")
[ "$(awk '/^NSpid:/ { print $NF }' "/proc/$first/status")" = 1 ]
kill -TERM "$first"
wait "$pid"
pid=
echo 'the image builds, serves, is healthy, and ends as process 1'
