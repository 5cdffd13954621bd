import { describe, expect, it } from 'vitest'
import { backoff } from '../../public/backoff.js'
import { explainClose, explainPaho } from '../../public/close-reasons.js'
import { describePayload, KEPT_BYTES } from '../../public/payload.js'
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

  it('a refused login as something that only a person can change', () => {
    const refusal = explainPaho(
      6,
      'AMQJS0006E Bad Connack return code:4 Connection Refused: bad user name or password.',
    )
    expect(refusal).toMatchObject({ final: true, sentence: 'The user name or the password is wrong.' })
    expect(explainPaho(6, 'AMQJS0006E Bad Connack return code:3 unavailable')?.final).toBe(false)
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
