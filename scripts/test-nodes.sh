#!/usr/bin/env bash
# Runs the end-to-end, tunnel, broker and push tests on every Node.js version that "engines" in package.json names, but for
# the one that this runs on, which `npm test` has tested. Each comes from npm, into a temporary folder.
#
# NODES="22 26" npm run test:nodes    runs those alone; arguments after `--` go to vitest.
set -euo pipefail
cd "$(dirname "$0")/.."

engines='require("./package.json").engines.node.match(/(?<=\^)\d+/g)'
read -ra versions <<<"${NODES:-$(node -p "$engines.filter(major => major !== process.versions.node.split('.')[0]).join(' ')")}"
platform=$(node -p '`${process.platform}-${process.arch}`')
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
# Tests that start the program start what was built.
npm run --silent build

failed=()
for version in "${versions[@]}"; do
  mkdir "$directory/$version"
  npm install --silent --no-audit --no-fund --prefix "$directory/$version" "node-$platform@$version"
  bin="$directory/$version/node_modules/node-$platform/bin"
  echo "Node.js $("$bin/node" --version)"
  PATH="$bin:$PATH" "$bin/node" node_modules/vitest/vitest.mjs run \
    test/end-to-end/ test/tunnel/ test/websocket/ test/mqtt/ test/broker/ test/sources/ test/journal/ test/hub/ test/presence/ test/receipts/ "$@" || failed+=("$version")
done
[ ${#failed[@]} -eq 0 ] || { echo "scripts/test-nodes.sh: failed on Node.js ${failed[*]}" >&2; exit 1; }
