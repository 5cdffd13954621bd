import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { LazyLogger } from '../../src/base/connection-log.js'

/** A logger at `info`, and the lines that it has written. */
function collect() {
  const lines: Record<string, unknown>[] = []
  const log = pino({ level: 'info', base: null, timestamp: false }, { write: line => lines.push(JSON.parse(line)) })
  return { log, lines }
}

describe("a connection's log", () => {
  it('says in each line what it was bound to by then', () => {
    const { log, lines } = collect()
    const late = new LazyLogger(log, { connection: 'a', peer: '192.0.2.1' })
    late.setBindings({ subprotocol: 'mqtt' })
    late.info('first')
    late.setBindings({ clientId: 'c' })
    late.warn({ reason: 'broker-lost' }, 'second')
    late.error({ reason: 'internal-error' }, 'third')
    const bound = { connection: 'a', peer: '192.0.2.1', subprotocol: 'mqtt' }
    expect(lines).toEqual([
      { level: 30, ...bound, msg: 'first' },
      { level: 40, ...bound, clientId: 'c', reason: 'broker-lost', msg: 'second' },
      { level: 50, ...bound, clientId: 'c', reason: 'internal-error', msg: 'third' },
    ])
  })

  it('writes nothing below the level, and makes no child for it', () => {
    const { log, lines } = collect()
    let children = 0
    log.onChild = () => children++
    const late = new LazyLogger(log, { connection: 'a' })
    late.debug({ err: new Error('reset') }, 'The socket failed')
    late.debug('nothing')
    expect(children).toBe(0)
    late.info('something')
    late.info('more')
    expect(children).toBe(1)
    expect(lines.map(({ msg }) => msg)).toEqual(['something', 'more'])
  })
})
