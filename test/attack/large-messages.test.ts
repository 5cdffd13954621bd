import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { generate } from 'mqtt-packet'
import { expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { loadConfig } from '../../src/config/load.js'
import { startGateway } from '../../src/gateway/gateway.js'

const size = 8 * 1024 ** 2
const count = 6

/** Bytes of buffers that are in use. */
function bufferBytes(): number {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('gc')
  if (typeof collect === 'function') collect()
  return process.memoryUsage().arrayBuffers
}

it('large retained messages are in memory once, for the broker, push and the journal together', async () => {
  const cwd = await mkdtemp(join(tmpdir(), 'mqway-large-'))
  onTestFinished(() => rm(cwd, { recursive: true }))
  const listeners = { http: { port: 0 }, https: { port: 'off' }, mqtt: { port: 0 } }
  await writeFile(join(cwd, 'mqway.yaml'), JSON.stringify({ data: 'none', ...listeners }))
  const { config } = loadConfig({ argv: [], env: {}, cwd })
  const gateway = await startGateway(config, createLog({ level: 'silent', format: 'json' }), { cwd })
  onTestFinished(() => gateway.close(0))
  const port = Number(new URL(gateway.urls.find(url => url.startsWith('mqtt:')) ?? '').port)
  const socket = connect({ port, host: '127.0.0.1' })
  onTestFinished(() => void socket.destroy())
  socket.write(generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId: 'large' }))
  await once(socket, 'data')
  const payload = Buffer.alloc(size, 'x')
  const before = bufferBytes()
  for (let index = 1; index <= count; index++) {
    const topic = `large/${index}`
    socket.write(generate({ cmd: 'publish', topic, payload, qos: 1, messageId: index, retain: true, dup: false }))
    // PUBACK comes when it is in the journal.
    await once(socket, 'data')
  }
  const bytes = bufferBytes() - before
  // Buffers of the start may have gone meanwhile.
  expect(bytes).toBeGreaterThanOrEqual(0.9 * count * size)
  expect(bytes).toBeLessThan(1.5 * count * size)
})
