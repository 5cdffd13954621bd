import { describe, expect, it } from 'vitest'
import { backoff } from '../../public/backoff.js'
import { explainClose, explainDisconnect, explainError, explainRefusal } from '../../public/close-reasons.js'
import { describePayload, KEPT_BYTES } from '../../public/payload.js'
import { describeProperties, readProperties } from '../../public/properties.js'
import { publishCommand } from '../../public/terminal-commands.js'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

describe('the page explains', () => {
  it('a close frame with the gateway’s own words and the code', () => {
    const { sentence, detail } = explainClose({ code: 1001, reason: 'The gateway is shutting down' })
    expect(sentence).toBe('The gateway is shutting down.')
    expect(detail).toContain('close code 1001')
  })

  it('an end without a close frame', () => {
    expect(explainClose({ code: 1006, reason: '' }).sentence).toContain('was lost')
  })

  it('a refused login as something that only a person can change, in each version of MQTT', () => {
    for (const code of [4, 0x86]) {
      const refusal = explainError({ code, message: 'Connection refused: …' }, 'go away')
      expect(refusal).toMatchObject({ final: true, login: true, sentence: 'The user name or the password is wrong.' })
    }
    expect(explainError({ code: 0x86, message: 'Connection refused: …' }, 'go away')?.detail).toBe(
      'MQTT CONNACK reason code 0x86: go away',
    )
    expect(explainError({ code: 3, message: 'Connection refused: …' })?.final).toBe(false)
    expect(explainError({ code: 0x97, message: 'Connection refused: …' })).toMatchObject({
      final: false,
      sentence: 'The broker refused the connection: quota exceeded.',
    })
  })

  it('what the broker says of an end, a message or a subscription', () => {
    expect(explainDisconnect({ reasonCode: 0x8e })?.sentence).toBe(
      'The same client id connected from another connection.',
    )
    const properties = { reasonString: 'The gateway is shutting down' }
    expect(explainDisconnect({ reasonCode: 0x8b, properties })).toEqual({
      sentence: 'The gateway is shutting down.',
      detail: 'MQTT DISCONNECT reason code 0x8B',
    })
    expect(explainDisconnect({ reasonCode: 0 })).toBe(undefined)
    expect(explainRefusal('message', 0x87)).toBe('The broker refused this message: not authorized (reason code 0x87).')
    expect(explainRefusal('subscription', 0x80)).toBe('The broker refused this subscription (reason code 0x80).')
  })

  it('a lost connection by its socket, and invalid MQTT by its error', () => {
    expect(explainError({ message: 'WebSocket error' })).toBe(undefined)
    expect(explainError({ message: 'Invalid header flag bits' })?.detail).toBe('Invalid header flag bits')
  })
})

describe('the page waits between two tries', () => {
  it('twice as long each time, half of it by chance, 30 s at most', () => {
    expect([1, 2, 3].map(failures => backoff(failures, () => 1))).toEqual([1_000, 2_000, 4_000])
    expect(backoff(1, () => 0)).toBe(500)
    expect(backoff(1_000, () => 1)).toBe(30_000)
  })
})

describe('the page shows a payload', () => {
  it('as text, JSON, bytes or nothing', () => {
    expect(describePayload(bytes('größer'))).toMatchObject({ kind: 'text', text: 'größer', size: 8 })
    expect(describePayload(bytes('{"a":1}')).kind).toBe('json')
    expect(describePayload(Uint8Array.of(0, 255, 16))).toMatchObject({ kind: 'binary', text: '00 ff 10' })
    expect(describePayload(new Uint8Array(0)).kind).toBe('empty')
  })

  it('up to a bound that may fall into the middle of a character', () => {
    const { kind, cut, text, size } = describePayload(bytes(`x${'ß'.repeat(KEPT_BYTES)}`))
    expect({ kind, cut, size }).toEqual({ kind: 'text', cut: true, size: 2 * KEPT_BYTES + 1 })
    expect(text.endsWith('ß')).toBe(true)
  })
})

describe('the page shows properties', () => {
  it('with names, and bytes as text where they are', () => {
    expect(describeProperties(undefined)).toEqual([])
    expect(
      describeProperties({
        contentType: 'text/plain',
        messageExpiryInterval: 90,
        responseTopic: 'answers',
        correlationData: Uint8Array.of(0, 255),
        userProperties: { unit: '°C', tag: ['a', 'b'] },
      }),
    ).toEqual([
      { name: 'Content type', value: 'text/plain' },
      { name: 'Expires', value: 'in 90 s' },
      { name: 'Response topic', value: 'answers' },
      { name: 'Correlation data', value: '00 ff' },
      { name: 'unit', value: '°C', user: true },
      { name: 'tag', value: 'a', user: true },
      { name: 'tag', value: 'b', user: true },
    ])
    expect(describeProperties({ correlationData: bytes('abc') })).toMatchObject([{ value: 'abc' }])
    expect(
      [60, 119, 120, 7200, 200_000].map(
        messageExpiryInterval => describeProperties({ messageExpiryInterval })[0]?.value,
      ),
    ).toEqual(['in 1 min', 'in 119 s', 'in 2 min', 'in 2 h', 'in 2 d'])
  })

  it('up to a bound, in number and in length', () => {
    const values = Array.from({ length: 1000 }, () => 'x'.repeat(1000))
    const lines = describeProperties({ userProperties: { [`n${'n'.repeat(1000)}`]: values } })
    expect(lines).toHaveLength(21)
    expect(lines.at(-1)).toEqual({ name: 'And', value: '980 more user properties' })
    expect(Math.max(...lines.flatMap(({ name, value }) => [name.length, value.length]))).toBeLessThan(310)
  })

  it('as a person writes them', () => {
    const nothing = { contentType: '', expiry: '', userProperties: '' }
    expect(readProperties(nothing)).toEqual({})
    expect(
      readProperties({ contentType: 'a/b', expiry: ' 60 ', userProperties: 'unit: °C\n\nurl: http://a:1\nunit:\n' }),
    ).toEqual({
      properties: {
        contentType: 'a/b',
        messageExpiryInterval: 60,
        userProperties: { unit: ['°C', ''], url: ['http://a:1'] },
      },
    })
    for (const expiry of ['0', '-1', '1.5', 'x', '4294967296', '1e400']) {
      expect([expiry, readProperties({ ...nothing, expiry }).objection]).toEqual([
        expiry,
        'The expiry is a whole number of seconds, from 1 to 4294967295.',
      ])
    }
    expect(readProperties({ ...nothing, userProperties: 'a: b\nc' }).objection).toBe(
      'Line 2 of the user properties is not “name: value”.',
    )
  })
})

describe('the page’s command for the terminal', () => {
  const place = { url: '', path: '/mqtt', filter: '', topic: '/news/europe/sport' }

  it('is the one of the article on this machine', () => {
    const payload = 'this is the message about european sports'
    expect(publishCommand({ ...place, hostname: 'localhost', payload })).toBe(
      `mosquitto_pub -t '/news/europe/sport' -m '${payload}'`,
    )
  })

  it('survives a shell, whatever the payload is', () => {
    expect(publishCommand({ ...place, hostname: 'ns.example.tld', payload: "it's $HOME" })).toBe(
      `mosquitto_pub -h ns.example.tld -t '/news/europe/sport' -m 'it'\\''s $HOME'`,
    )
  })
})
