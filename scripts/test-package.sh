#!/usr/bin/env bash
# Installs the package as its users do, from the registry and without this folder's lock file, and starts what it brings: the program, the library and
# the client. An installed package that asks for another Node.js than the one that this runs on is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
directory=$(mktemp -d)
pid=
cleanup() {
  [ -z "$pid" ] || kill -- -"$pid" 2>/dev/null || true
  rm -rf "$directory"
}
trap cleanup EXIT
npm pack --silent --pack-destination "$directory" >/dev/null
cd "$directory"
echo '{ "private": true, "type": "module" }' >package.json
npm install --silent --no-audit --no-fund --ignore-scripts --engine-strict ./mqway-*.tgz
npx --no-install mqway --version
node --input-type=module -e 'import { connect } from "mqway/client"; connect({ url: "http://127.0.0.1:1" }).close()'

echo 'the library: its types, strictly, with those of what it imports'
cat >program.ts <<'EOF'
import { createServer, type Server as HttpServer } from 'node:http'
import { type Config, ConfigError, type Gateway, type GatewayOptions, type LogEntry, type Server, StartError, startGateway } from 'mqway'
import { connect } from 'mqway/client'

const config: Config = { anonymous: true, data: 'none', limits: { connections: 10, handshakeTimeout: '5s' }, log: { level: 'debug' } }
// @ts-expect-error an unknown option
const wrong: Config = { htp: {} }
const server: HttpServer = createServer((_request, response) => response.end('own'))
const lines: LogEntry[] = []
const options: GatewayOptions = { server: server satisfies Server, log: entry => lines.push(entry) }
const gateway: Gateway = await startGateway(config, options)
const refusal: unknown = await startGateway(wrong).catch((error: unknown) => error)
if (!(refusal instanceof ConfigError) || !/^htp: is not an option/.test(refusal.problems[0] ?? '')) throw new Error('no ConfigError')
if (refusal instanceof StartError) throw new Error('an error has one kind')
server.listen(0, '127.0.0.1', async () => {
  const address = server.address()
  const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`
  const received = new Promise<string>(resolve => {
    const client = connect({ url, topics: ['a'], onEvent: ({ payload }) => resolve(String(payload)), onState: async ({ phase }) => {
      if (phase === 'open') await fetch(`${url}/v1/publish?topic=a`, { method: 'POST', body: 'from the library' })
    } })
    server.once('close', () => client.close())
  })
  process.stdout.write(`${await (await fetch(url)).text()}, ${await received}, ${lines.length > 0 ? 'logged' : 'not logged'}\n`)
  await gateway.close()
  server.close()
  server.closeAllConnections()
})
EOF
cat >tsconfig.json <<EOF
{
  "compilerOptions": {
    "module": "nodenext", "target": "es2023", "lib": ["es2023", "dom"], "strict": true, "exactOptionalPropertyTypes": true, "skipLibCheck": false,
    "types": ["node"], "typeRoots": ["$root/node_modules/@types"]
  },
  "files": ["program.ts"]
}
EOF
"$root/node_modules/.bin/tsc" -p tsconfig.json
[ "$(timeout 30 node program.js)" = 'own, from the library, logged' ]

echo 'the program: npx with the packed file serves'
mkdir empty
cp mqway-*.tgz empty
cd empty
setsid npx --yes --prefer-offline ./mqway-*.tgz --data none --http-port 0 --https-port off --mqtt-port off --log-format json >log 2>&1 &
pid=$!
for _ in $(seq 600); do
  url=$(sed -n 's/.*"mqway is ready: \(http[^ "]*\).*/\1/p' log)
  [ -n "$url" ] && break
  kill -0 "$pid" || { cat log >&2; exit 1; }
  sleep 0.1
done
curl --fail --silent --show-error "$url/healthz"
curl --fail --silent --show-error "$url/vendor/mqway.js" >/dev/null
