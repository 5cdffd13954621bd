import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { accepts, freePort, start } from '../children.js'
import { mqwayProgram } from '../places.js'
import { missingOf, type Running, type Setup, type System } from './system.js'

/** mqway as a tunnel. */
export const mqway: System = {
  name: 'mqway',
  speaks: 'websocket',
  hasTls: true,
  missing: () => missingOf(mqwayProgram),
  start: setup => startMqway(setup, `mqtt://127.0.0.1:${setup.upstreamPort}`),
}

/** mqway with the broker inside. */
export const mqwayEmbedded: System = {
  ...mqway,
  name: 'mqway embedded',
  start: setup => startMqway(setup, 'embedded'),
}

async function startMqway({ directory, tls, certificate, speaksMqtt }: Setup, broker: string): Promise<Running> {
  const port = await freePort()
  const config = {
    http: { port: tls ? 'off' : port },
    https: tls ? { port, ...certificate } : { port: 'off' },
    mqtt: { port: 'off' },
    broker,
    // Where bytes are echoed there is no CONNECT to look at. Nobody else pings, so that nobody does.
    tunnels: [{ path: '/mqtt', inspectConnect: speaksMqtt, pingInterval: 'off' }],
    data: 'none',
    limits: { connections: 100_000, connectionsPerAddress: 100_000, upgradesPerSecond: 'off' },
    log: { level: 'warn', format: 'json' },
  }
  const file = join(directory, 'mqway.yaml')
  writeFileSync(file, JSON.stringify(config)) // which is YAML
  // BENCH_NODE_FLAGS: to take a profile, as in --cpu-prof.
  const flags = (process.env['BENCH_NODE_FLAGS'] ?? '').split(' ').filter(flag => flag !== '')
  const child = start(process.execPath, [...flags, mqwayProgram, 'serve', '--config', file], directory)
  await accepts(port, child)
  return { port, pids: [child.pid], stop: () => child.stop() }
}
