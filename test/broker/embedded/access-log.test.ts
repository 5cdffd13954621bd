import { Writable } from 'node:stream'
import { afterAll, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { Credentials, enter, startGuarded } from './access-rig.js'

const credentials = new Credentials()
afterAll(() => credentials.remove())

/** What could begin a line of its own, or give a terminal orders: refused as no text of MQTT. */
const forbidden = 'a\n{"level":60,"msg":"forged"}\r\n\u001b[31mred\u001b[0m\u0085\u2028\u2029\u009b31m\u0000\u007fz'
/** The same as far as MQTT allows it. */
const hostile = 'a {"level":60,"msg":"forged"}\u2028\u2029\u200ez'

describe.each(['json', 'pretty'] as const)('the log as %s', format => {
  it('has one line for each event, whatever clients call themselves and their topics', async () => {
    let written = ''
    const destination = new Writable({
      write(chunk, _encoding, done) {
        written += chunk
        done()
      },
    })
    const broker = await startGuarded({
      access: { ...credentials.access, rules: [{ to: 'anonymous', subscribe: ['x'] }] },
      log: createLog({ level: 'trace', format }, destination),
    })
    const topic = hostile
    expect((await enter(broker, undefined, { clientId: forbidden, username: forbidden })).returnCode).toBeUndefined()
    const token = await credentials.token('someone')
    const guest = await enter(broker, undefined, {
      clientId: hostile,
      clean: false,
      username: hostile,
      password: Buffer.from(token),
    })
    if (guest.returnCode === 0) {
      guest.send({ cmd: 'publish', topic, payload: hostile, qos: 1, messageId: 1, retain: false, dup: false })
      await guest.next()
      await guest.subscribe([topic])
      await guest.end()
    }
    const refused = await enter(broker, undefined, { clientId: hostile, username: hostile, password: Buffer.from('x') })
    expect(refused.returnCode).toBe(4)
    const named = await enter(broker, 'alice', { clientId: `${hostile}2`, clean: false })
    expect(named.returnCode).toBe(0)
    named.send({ cmd: 'publish', topic, payload: hostile, qos: 1, messageId: 1, retain: false, dup: false })
    await named.next()
    expect(await named.subscribe([topic])).toEqual([128])
    await named.end()
    await broker.close()

    const lines = written.trimEnd().split('\n')
    const denials = lines.filter(line => line.includes('may not'))
    expect(denials).toHaveLength(2)
    for (const line of denials) expect(line).toContain('alice')
    for (const line of lines) {
      // Every line is one that the program wrote; pretty, an error has several, further in.
      if (format === 'json')
        expect(JSON.parse(line)).toMatchObject({ time: expect.any(String), msg: expect.any(String) })
      else expect(line).toMatch(/^(\[\d\d:\d\d:\d\d| {4})/)
    }
    expect(lines.filter(line => /^\{"level":60/.test(line))).toEqual([])
    expect(written).not.toContain('\u001b')
    expect(written).not.toContain('\r')
  })
})
