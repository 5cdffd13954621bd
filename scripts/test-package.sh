#!/usr/bin/env bash
# Installs the package as its users do, from the registry and without this folder's lock file, and starts what it brings. An
# installed package that asks for another Node.js than the one that this runs on is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
npm pack --silent --pack-destination "$directory" >/dev/null
cd "$directory"
echo '{ "private": true, "type": "module" }' >package.json
npm install --silent --no-audit --no-fund --ignore-scripts --engine-strict ./mqway-*.tgz
npx --no-install mqway --version
node --input-type=module -e 'import { connect } from "mqway/client"; connect({ url: "http://127.0.0.1:1" }).close()'
if message=$(node --input-type=module -e 'import "mqway"' 2>&1); then
  echo "import 'mqway' must throw" >&2
  exit 1
fi
grep -q '^Error: mqway is a program' <<<"$message"
