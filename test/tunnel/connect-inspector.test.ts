import fc from 'fast-check'
import { generate } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { ConnectInspector } from '../../src/tunnel/connect-inspector.js'

const limit = 64 * 1024

/** Gives `bytes` to an inspector in two parts or more; returns what it let through, and its facts. */
function inspect(bytes: Buffer, cuts: readonly number[] = [], size = limit) {
  const inspector = new ConnectInspector(size)
  const through: Buffer[] = []
  let rest = bytes
  const take = (part: Buffer): void => {
    const passed = inspector.facts ? part : inspector.push(part)
    if (passed) through.push(passed)
  }
  for (const cut of cuts) {
    const at = cut % (rest.length + 1)
    take(rest.subarray(0, at))
    rest = rest.subarray(at)
  }
  take(rest)
  return { facts: inspector.facts, through: Buffer.concat(through), held: inspector.bufferedBytes }
}

const refusal = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    if (error instanceof GatewayError) return error.reason
    throw error
  }
  return 'none'
}

const connect = fc.record({
  clientId: fc.string({ minLength: 1, maxLength: 40 }),
  version: fc.constantFrom(3 as const, 4 as const, 5 as const),
  username: fc.option(fc.string({ minLength: 1, maxLength: 30 }), { nil: undefined }),
  will: fc.boolean(),
})

const encode = ({
  clientId,
  version,
  username,
  will,
}: typeof connect extends fc.Arbitrary<infer T> ? T : never): Buffer =>
  generate({
    cmd: 'connect',
    clientId,
    protocolVersion: version,
    protocolId: version === 3 ? 'MQIsdp' : 'MQTT',
    clean: true,
    keepalive: 60,
    ...(username === undefined ? {} : { username, password: Buffer.from('secret') }),
    ...(will ? { will: { topic: 'gone', payload: Buffer.from('bye'), qos: 1, retain: true } } : {}),
    ...(version === 5 ? { properties: { sessionExpiryInterval: 3600, receiveMaximum: 20 } } : {}),
  })

describe('the CONNECT inspector', () => {
  it('tells who connects with MQTT 3.1, 3.1.1 and 5, and passes on every byte unchanged, however it is cut', () => {
    fc.assert(
      fc.property(
        connect,
        fc.array(fc.nat(200), { maxLength: 8 }),
        fc.uint8Array({ maxLength: 50 }),
        (packet, cuts, after) => {
          const bytes = Buffer.concat([encode(packet), after])
          const { facts, through, held } = inspect(bytes, cuts)
          expect(facts).toEqual({
            clientId: packet.clientId,
            protocolVersion: packet.version,
            username: packet.username,
          })
          expect(through.equals(bytes)).toBe(true)
          expect(held).toBe(0)
        },
      ),
    )
  })

  it('lets nothing through before the CONNECT is complete', () => {
    const bytes = generate({ cmd: 'connect', clientId: 'c', protocolVersion: 4, clean: true, keepalive: 0 })
    for (let at = 0; at < bytes.length; at++)
      expect(inspect(bytes.subarray(0, at))).toMatchObject({ facts: undefined, held: at })
  })

  it('keeps the password to itself', () => {
    const bytes = generate({
      cmd: 'connect',
      clientId: 'c',
      protocolVersion: 4,
      clean: true,
      keepalive: 0,
      username: 'u',
      password: Buffer.from('hush'),
    })
    expect(JSON.stringify(inspect(bytes).facts)).not.toContain('hush')
  })

  it.each([
    ['another packet', generate({ cmd: 'pingreq' })],
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a remaining length of five bytes', Buffer.from([0x10, 0xff, 0xff, 0xff, 0xff, 0x01])],
  ])('refuses %s as not MQTT', (_name, bytes) => {
    expect(refusal(() => inspect(bytes))).toBe('not-mqtt')
  })

  const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex')

  it.each([
    [
      'reserved flags in its first byte',
      '14 0f 0006 4d5149736470 03 02 000a 0001 70',
      { protocolVersion: 3, clientId: 'p' },
    ],
    ['its reserved flag set', '10 0f 0006 4d5149736470 03 01 000a 0001 70', { protocolVersion: 3, clientId: 'p' }],
    ['protocol level 2', '10 0d 0004 4d515454 02 02 000a 0001 70', { protocolVersion: 2, clientId: 'p' }],
    ['protocol level 6', '10 0d 0004 4d515454 06 02 000a 0001 70', { protocolVersion: 6, clientId: 'p' }],
    ['an unknown protocol', '10 0c 0004 4e4f5045 04 02 0000 0000', { protocolVersion: 4, clientId: '' }],
    [
      'a will of QoS 1 that it has not',
      '10 0d 0004 4d515454 04 0a 000a 0001 70',
      { protocolVersion: 4, clientId: 'p' },
    ],
    ['no client id', '10 0a 0004 4d515454 04 02 000a', { protocolVersion: 4 }],
    ['fewer bytes than its fields', '10 04 0004 4d51', {}],
    ['nothing in it', '10 00', {}],
  ])('leaves it to the broker to judge a CONNECT with %s', (_name, bytes, facts) => {
    expect(inspect(hex(bytes))).toMatchObject({ through: hex(bytes), facts, held: 0 })
  })

  it('refuses a CONNECT over the limit as soon as its length is known', () => {
    expect(refusal(() => inspect(Buffer.from([0x10, 0xff, 0xff, 0x7f])))).toBe('connect-too-large')
  })

  it('answers anything at all with facts, patience or an ending', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat(100), { maxLength: 4 }), (bytes, cuts) => {
        const framed = Buffer.concat([Buffer.from([0x10, bytes.length & 0x7f]), bytes])
        expect(['none', 'not-mqtt', 'connect-too-large']).toContain(refusal(() => inspect(framed, cuts, 100)))
      }),
      { numRuns: 2000 },
    )
  })
})
