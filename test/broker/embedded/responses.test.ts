import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { generate } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { somePeer } from './mqtt-session.js'

const log = createLog({ level: 'silent', format: 'json' })

describe('a client that does not read its acknowledgements', () => {
  it('is not read either after 128 KiB of them, and goes on when it reads', async () => {
    const broker = await createEmbedded({ data: 'none', ...limits, maxQueuedBytes: 1024 ** 2 }, log)
    const deaf = await broker.open(somePeer)
    deaf.write(generate({ cmd: 'connect', clientId: 'deaf', clean: true, keepalive: 0 }))
    await once(deaf, 'readable')
    const count = 90_000
    const publish = generate({
      cmd: 'publish',
      topic: 'n',
      payload: '',
      qos: 1,
      messageId: 7,
      dup: false,
      retain: false,
    })
    for (let sent = 0; sent < count; sent += 9000) deaf.write(Buffer.concat(Array(9000).fill(publish)))

    // It stands still when a thousand turns of the event loop bring nothing more.
    let received = 0
    for (let idle = 0; idle < 1000; idle++) {
      await turn()
      if (broker.figures().publishesReceived > received) idle = 0
      received = broker.figures().publishesReceived
    }
    // A PUBACK, in bytes.
    const acknowledgement = 4
    expect(received * acknowledgement).toBeGreaterThan(64 * 1024)
    expect(received * acknowledgement).toBeLessThan(256 * 1024)

    let bytes = 0
    deaf.on('data', chunk => {
      bytes += chunk.length
    })
    while (bytes < 4 + count * acknowledgement) await once(deaf, 'data')
    deaf.destroy()
    await broker.close()
  })
})
