import { describe, expect, it } from 'vitest'
import { readHandshake, switchingProtocols } from '../../src/websocket/handshake.js'

/** The key of RFC 6455 §1.3. */
const key = 'dGhlIHNhbXBsZSBub25jZQ=='
const headers = { host: 'localhost', upgrade: 'websocket', 'sec-websocket-key': key, 'sec-websocket-version': '13' }
const request = (changed: Record<string, string | undefined> = {}, method = 'GET') => ({
  ...{ method, httpVersionMajor: 1, httpVersionMinor: 1 },
  headers: { ...headers, ...changed },
})

describe('a handshake', () => {
  it.each([
    [undefined, []],
    ['mqtt', ['mqtt']],
    [', mqttv3.1\t,,mqtt', ['mqttv3.1', 'mqtt']],
  ])('with the subprotocols %j offers %j', (offer, subprotocols) => {
    const changed = offer === undefined ? {} : { 'sec-websocket-protocol': offer }
    expect(readHandshake(request({ ...changed, upgrade: ',WebSocket,' }))).toEqual({ key, subprotocols })
  })

  it.each([
    ['the method POST', request({}, 'POST'), 'bad-handshake'],
    ['another Upgrade', request({ upgrade: 'h2c' }), 'bad-handshake'],
    ['several Upgrades', request({ upgrade: 'websocket, h2c' }), 'bad-handshake'],
    ['no key', request({ 'sec-websocket-key': undefined }), 'bad-handshake'],
    ['a key of 15 bytes', request({ 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAA' }), 'bad-handshake'],
    ['no version', request({ 'sec-websocket-version': undefined }), 'bad-handshake'],
    ['version 8', request({ 'sec-websocket-version': '8' }), 'unsupported-version'],
    ['version 99', request({ 'sec-websocket-version': '99' }), 'unsupported-version'],
    ['an empty list of subprotocols', request({ 'sec-websocket-protocol': ',,' }), 'bad-handshake'],
    ['a subprotocol twice', request({ 'sec-websocket-protocol': 'mqtt, mqtt' }), 'bad-handshake'],
    ['a subprotocol that is no token', request({ 'sec-websocket-protocol': 'a b' }), 'bad-handshake'],
  ])('with %s is refused', (_name, refused, reason) => {
    expect(() => readHandshake(refused)).toThrow(expect.objectContaining({ reason }))
  })

  it.each([
    [undefined, ''],
    ['mqtt', 'Sec-WebSocket-Protocol: mqtt\r\n'],
  ])('is completed by a 101 with the accept value of RFC 6455 §1.3 and the subprotocol %j', (subprotocol, header) => {
    expect(switchingProtocols(key, subprotocol)).toBe(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n${header}\r\n`,
    )
  })
})
