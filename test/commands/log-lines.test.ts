import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { handshake } from '../helpers/handshake.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { run } from '../helpers/processes.js'
import { type ServingProgram, serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'

async function gatewayOf(config: object): Promise<{ gateway: ServingProgram; cwd: string }> {
  const cwd = mkdtempSync(join(tmpdir(), 'mqway-'))
  writeFileSync(
    join(cwd, 'mqway.yaml'),
    JSON.stringify({ http: { port: 0 }, https: { port: 'off' }, data: 'none', ...config }),
  )
  const gateway = await serving([], cwd)
  onTestFinished(async () => {
    gateway.child.kill('SIGKILL')
    await gateway.exited()
    rmSync(cwd, { recursive: true, force: true })
  })
  return { gateway, cwd }
}

/** Runs `mosquitto_pub`; resolves when it has ended. */
async function publish(cwd: string, port: number, ...args: string[]): Promise<void> {
  const program = run('mosquitto_pub', ['-p', String(port), '-t', 'a/b', '-m', 'x', ...args], { cwd })
  expect(await program.exited()).toBe(0)
}

const portOf = (gateway: ServingProgram): number => Number(new URL(gateway.url('mqtt')).port)

describeWith(['mosquitto', 'mosquitto_pub'], 'the log', () => {
  it.each([
    ['the built-in broker', 'embedded'],
    ['mosquitto', 'mosquitto'],
  ])('says that a client disconnected, and not that the broker closed the connection: %s', async (_name, kind) => {
    let broker: string = kind
    if (kind === 'mosquitto') {
      const mosquitto = await startMosquitto()
      onTestFinished(() => mosquitto.stop())
      broker = `mqtt://127.0.0.1:${mosquitto.port}`
    }
    const { gateway, cwd } = await gatewayOf({ mqtt: { port: 0 }, broker })
    for (const args of [[], ['-V', '5'], ['-q', '1']]) {
      if (kind === 'embedded' && args.includes('5')) continue
      const disconnected = gateway.logged('The client ')
      await publish(cwd, portOf(gateway), ...args)
      const { reason, level, connection, clientId, seconds } = await disconnected
      expect([level, typeof connection, typeof clientId, typeof seconds]).toEqual([30, 'string', 'string', 'number'])
      expect(['client-disconnected', 'client-closed']).toContain(reason)
    }
  })

  it('has the connection, the client id, the user and the topic of a message that was dropped', async () => {
    const { gateway, cwd } = await gatewayOf({
      mqtt: { port: 0 },
      access: { rules: [{ to: 'anonymous', subscribe: ['#'] }] },
    })
    const connected = gateway.logged('connected')
    const published = publish(cwd, portOf(gateway), '-i', 'me')
    const { connection } = await connected
    const dropped = await gateway.logged('dropped a message: this client may not publish to its topic')
    await published
    expect(dropped).toMatchObject({ connection, peer: '127.0.0.1', clientId: 'me', topic: 'a/b' })
  })

  it('has a line when an event stream begins, and one with its time and bytes when it ends', async () => {
    const { gateway } = await gatewayOf({ mqtt: { port: 'off' } })
    const connected = gateway.logged('event stream connected')
    const aborting = new AbortController()
    const { body } = await fetch(`${gateway.url('http')}/v1/events?topic=a`, { signal: aborting.signal })
    await body?.getReader().read()
    const { stream, topics } = await connected
    expect([typeof stream, topics]).toEqual(['string', ['a']])
    const ended = gateway.logged('The client closed the connection')
    aborting.abort()
    expect(await ended).toMatchObject({
      stream,
      reason: 'client-closed',
      seconds: expect.any(Number),
      bytesOut: expect.any(Number),
    })
  })

  it('has a line when a socket begins, and one with its time and bytes when it ends', async () => {
    const { gateway } = await gatewayOf({ mqtt: { port: 'off' } })
    const connected = gateway.logged('connected')
    const client = new WebSocket(`${gateway.url('http').replace('http', 'ws')}/v1/socket?topic=a`)
    await once(client, 'message')
    const { socket, connection, topics } = await connected
    expect([typeof socket, topics]).toEqual(['string', ['a']])
    const ended = gateway.logged('The client closed the connection')
    client.close()
    const line = await ended
    expect(line).toMatchObject({
      socket,
      connection,
      reason: 'client-closed',
      seconds: expect.any(Number),
      bytesIn: expect.any(Number),
    })
    expect(Number(line['bytesOut'])).toBeGreaterThan(50)
  })

  it('does not warn of features at each start where push.topics are listed', async () => {
    const mosquitto = await startMosquitto()
    onTestFinished(() => mosquitto.stop())
    const cwd = mkdtempSync(join(tmpdir(), 'mqway-'))
    onTestFinished(() => rmSync(cwd, { recursive: true }))
    const config = {
      http: { port: 0 },
      https: { port: 'off' },
      mqtt: { port: 'off' },
      data: 'none',
      push: { topics: ['news/#'] },
    }
    writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify({ ...config, broker: `mqtt://127.0.0.1:${mosquitto.port}` }))
    const gateway = run(process.execPath, [join(import.meta.dirname, '../../dist/cli.js'), '--log-format', 'json'], {
      cwd,
    })
    onTestFinished(async () => {
      gateway.child.kill('SIGKILL')
      await gateway.exited()
    })
    const lines: string[] = []
    while (!lines.at(-1)?.includes('is ready')) lines.push(await gateway.line())
    expect(lines.filter(line => line.includes('push.topics'))).toEqual([])
  })

  it('has one line for many clients while the broker is down', async () => {
    const { gateway } = await gatewayOf({ mqtt: { port: 'off' }, broker: 'unix:/nowhere/b.sock' })
    const lines: string[] = []
    gateway.child.stdout?.on('data', chunk => lines.push(String(chunk)))
    for (let count = 0; count < 20; count++) expect((await handshake(gateway.url('ws'))).status).toBe(502)
    await fetch(`${gateway.url('http')}/readyz`)
    const logged = lines
      .join('')
      .split('\n')
      .filter(line => line.includes('broker-refused'))
    expect(logged).toHaveLength(1)
    expect(logged[0]).not.toMatch(/\bat .*\.js/)
  })
})
