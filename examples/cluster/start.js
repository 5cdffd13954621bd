/*
 * Starts three gateways, Redis, mosquitto and haproxy on loopback, and starts each of them again when it ends. Ctrl-C ends all.
 *
 *   node examples/cluster/start.js [eight ports]
 *
 * The third gateway reaches Redis and the broker through haproxy, so that faults.js can cut it off.
 */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const [front, first, second, third, redis, broker, redisRelay, brokerRelay] = (
  process.argv[2] ?? '8080,8081,8082,8083,6390,1890,6391,1891'
)
  .split(',')
  .map(Number)
// Nobody else can have made it.
const directory = mkdtempSync(join(tmpdir(), 'mqway-cluster-'))
const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))
const pages = fileURLToPath(new URL('public', import.meta.url))
const haproxySocket = join(directory, 'haproxy.sock')

mkdirSync(join(directory, 'redis'))
mkdirSync(join(directory, 'mosquitto'))

/** What faults.js reads: the process ids by name, and which gateway reads the broker. */
const state = { front, haproxySocket, pids: {}, reader: '' }
const save = () => renameSync(write('state.new', JSON.stringify(state)), join(directory, 'state.json'))

const write = (name, lines) => {
  const file = join(directory, name)
  writeFileSync(file, lines)
  return file
}

const user = process.getuid?.() === 0 ? 'root' : (process.env.USER ?? 'root')
const mosquittoConf = write(
  'mosquitto.conf',
  `listener ${broker} 127.0.0.1
allow_anonymous true
persistence true
persistence_location ${directory}/mosquitto/
max_queued_messages 100000
user ${user}
`,
)

const haproxyCfg = write(
  'haproxy.cfg',
  `global
  stats socket ${haproxySocket} level admin
defaults
  mode http
  timeout connect 1s
  timeout client 5m
  timeout server 5m
  option redispatch
  retries 3
listen gateways
  bind 127.0.0.1:${front}
  balance roundrobin
  option httpchk GET /readyz
  default-server check inter 500 fall 1 rise 1 on-marked-down shutdown-sessions
  server gateway1 127.0.0.1:${first}
  server gateway2 127.0.0.1:${second}
  server gateway3 127.0.0.1:${third}
listen redis
  mode tcp
  bind 127.0.0.1:${redisRelay}
  server redis 127.0.0.1:${redis}
listen broker
  mode tcp
  bind 127.0.0.1:${brokerRelay}
  server broker 127.0.0.1:${broker}
`,
)

const gateway = (name, port, redisPort, brokerPort) => {
  const config = {
    host: '127.0.0.1',
    http: { port },
    https: { port: 'off' },
    mqtt: { port: 'off' },
    data: 'none',
    public: pages,
    broker: `mqtt://127.0.0.1:${brokerPort}`,
    push: { topics: ['count/#'], journal: { redis: { url: `redis://127.0.0.1:${redisPort}` } } },
  }
  const file = write(`${name}.json`, JSON.stringify(config, undefined, 2))
  return [process.execPath, cli, 'serve', '--config', file, '--log-format', 'json']
}

const commands = {
  redis: ['redis-server', ...['--port', redis, '--bind', '127.0.0.1', '--dir', join(directory, 'redis')]].concat([
    ...['--save', '', '--appendonly', 'yes'],
  ]),
  mosquitto: ['mosquitto', '-c', mosquittoConf],
  haproxy: ['haproxy', '-db', '-f', haproxyCfg],
  gateway1: gateway('gateway1', first, redis, broker),
  gateway2: gateway('gateway2', second, redis, broker),
  gateway3: gateway('gateway3', third, redisRelay, brokerRelay),
}

const children = new Map()
let isEnding = false
let readyGateways = 0

function start(name) {
  const [command, ...args] = commands[name]
  const child = spawn(command, args.map(String), {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Debian has servers where the PATH of a user may not look.
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  })
  children.set(name, child)
  state.pids[name] = child.pid
  save()
  child.on('error', error => process.stderr.write(`${name}: ${error.message}\n`))
  const isGateway = name.startsWith('gateway')
  const follow = stream => createInterface({ input: stream }).on('line', line => isGateway && onLog(name, line))
  follow(child.stdout)
  follow(child.stderr)
  child.on('exit', (code, signal) => {
    children.delete(name)
    if (isEnding) return
    process.stdout.write(`${name} ended (${signal ?? code}) and is started again\n`)
    setTimeout(() => !isEnding && start(name), 500)
  })
}

function onLog(name, line) {
  if (line.includes('this gateway reads the broker')) {
    state.reader = name
    save()
  }
  if (!line.includes('"urls"') || ++readyGateways !== 3) return
  process.stdout.write(
    `Ready: http://127.0.0.1:${front}/ counts what arrives. In another terminal: node examples/cluster/faults.js ${directory}\n`,
  )
}

for (const name of Object.keys(commands)) start(name)

function end() {
  if (isEnding) return
  isEnding = true
  for (const child of children.values()) {
    // A process that faults.js has stopped.
    child.kill('SIGCONT')
    child.kill('SIGTERM')
  }
  setTimeout(() => {
    for (const child of children.values()) child.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  }, 3000)
}
process.on('SIGINT', end)
process.on('SIGTERM', end)
