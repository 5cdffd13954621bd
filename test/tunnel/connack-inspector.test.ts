import { generate } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { ConnackInspector } from '../../src/tunnel/connack-inspector.js'

const connack = (reasonCode: number, assignedClientIdentifier?: string): Buffer =>
  generate(
    {
      ...{ cmd: 'connack', reasonCode, sessionPresent: false },
      properties: { receiveMaximum: 20, ...(assignedClientIdentifier && { assignedClientIdentifier }) },
    },
    { protocolVersion: 5 },
  )
const auth = (bytes: number): Buffer =>
  generate(
    {
      ...{ cmd: 'auth', reasonCode: 0x18 },
      properties: { authenticationMethod: 'x', authenticationData: Buffer.alloc(bytes) },
    },
    { protocolVersion: 5 },
  )

/** The result after each chunk. */
function read(chunks: readonly Buffer[], readsClientId = false) {
  const inspector = new ConnackInspector(readsClientId)
  return chunks.map(chunk => inspector.push(chunk))
}
const accepted = { isAccepted: true, assignedClientId: undefined }
const refused = { isAccepted: false, assignedClientId: undefined }

describe('the broker’s response to CONNECT', () => {
  it('accepts or refuses the client', () => {
    expect(read([Buffer.from([0x20, 2, 1, 0])])).toEqual([accepted])
    expect(read([Buffer.from([0x20, 2, 0, 5])])).toEqual([refused])
    expect(read([connack(0)])).toEqual([accepted])
    expect(read([connack(0x87)])).toEqual([refused])
  })

  it('may come byte by byte, with other packets behind it, and behind AUTH', () => {
    const bytes = Buffer.concat([auth(200), connack(0, 'made'), Buffer.from([0xd0, 0])])
    expect(read([bytes], true)).toEqual([{ isAccepted: true, assignedClientId: 'made' }])
    const single = [...bytes.subarray(0, -2)].map(byte => Buffer.from([byte]))
    const results = read(single, true)
    expect(results.at(-1)).toEqual({ isAccepted: true, assignedClientId: 'made' })
    expect(results.slice(0, -1).every(result => result === undefined)).toBe(true)
  })

  it('is copied while it is incomplete: its bytes are only valid during the call', () => {
    const inspector = new ConnackInspector(false)
    const first = Buffer.from([0x20, 2, 0])
    expect(inspector.push(first)).toBeUndefined()
    first.fill(0xff)
    expect(inspector.push(Buffer.from([0]))).toEqual(accepted)
  })

  it('is no acceptance where it is something else', () => {
    for (const bytes of [
      [0x30, 2, 0, 0],
      [0x20, 0],
      [0x20, 0xff, 0xff, 0xff, 0xff, 0xff],
    ])
      expect(read([Buffer.from(bytes)])[0]?.isAccepted).not.toBe(true)
    expect(read([Buffer.from('HTTP/1.1 400 Bad Request')])).toEqual([refused])
  })

  it('is waited for within 64 KiB', () => {
    const [result] = read([auth(65_000).subarray(0, 65_000)])
    expect(result).toBeUndefined()
    const endless = Buffer.concat([Buffer.from([0xf0, 0xff, 0xff, 0x7f]), Buffer.alloc(70_000)])
    expect(read([endless])).toEqual([accepted])
  })

  it('has no client id where its properties are malformed', () => {
    expect(read([Buffer.from([0x20, 4, 0, 0, 1, 0xee])], true)).toEqual([accepted])
  })
})
