import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { RefusalLog } from '../../src/server/refusal-log.js'
import { recordingLog } from './rig.js'

describe('the log of refused connections', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  const down = () =>
    new GatewayError('broker-refused', { detail: 'mqtt://b:1: nothing listens there', cause: new Error('x') })
  const text = 'The MQTT broker does not accept connections: mqtt://b:1: nothing listens there'

  it('has one line for the first client that a broker that is down has refused, and then the number of the others', () => {
    const { log, lines } = recordingLog()
    const refusals = new RefusalLog()
    for (let count = 0; count < 101; count++) refusals.write(log.child({ connection: `c${count}` }), down())
    expect(lines).toMatchObject([{ level: 50, connection: 'c0', reason: 'broker-refused', msg: text }])
    expect(lines[0]).not.toHaveProperty('err')
    vi.advanceTimersByTime(10_000)
    expect(lines).toHaveLength(2)
    expect(lines[1]).toMatchObject({ level: 50, suppressed: 100, msg: `${text} (100 more connections in 10 s)` })
    vi.advanceTimersByTime(60_000)
    expect(lines).toHaveLength(2)
    refusals.write(log, down())
    expect(lines).toHaveLength(3)
  })

  it('tells different brokers apart, and has a line for each refusal of another kind', () => {
    const { log, lines } = recordingLog()
    const refusals = new RefusalLog()
    refusals.write(log, down())
    refusals.write(log, new GatewayError('broker-refused', { detail: 'mqtt://c:1: nothing listens there' }))
    for (let count = 0; count < 3; count++)
      refusals.write(log, new GatewayError('origin-refused', { cause: 'Origin: x' }))
    expect(lines.map(({ msg }) => msg)).toHaveLength(5)
    expect(lines.at(-1)).toMatchObject({ err: 'Origin: x' })
  })

  it('has the stack of an error of the program itself, and of no other', () => {
    const { log, lines } = recordingLog()
    const refusals = new RefusalLog()
    refusals.write(log, GatewayError.from(new Error('a mistake')))
    refusals.write(log, new GatewayError('identity-unavailable', { cause: new Error('webhook: 500') }))
    expect(JSON.stringify(lines[0])).toContain('refusal-log.test')
    expect(lines[1]).toMatchObject({ err: 'webhook: 500' })
  })
})
