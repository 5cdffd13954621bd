import { describe, expect, it } from 'vitest'
import { disconnection, refusalOf, TakenOver } from '../../src/mqtt/broker-responses.js'

describe('the refusal of a CONNECT', () => {
  it.each([
    [4, /user name or password/],
    [5, /not authorize/],
    [2, /client id/],
    [134, /user name or password/],
    [135, /not authorize/],
    [133, /client id/],
    [137, /busy/],
    [159, /so many connections/],
    [200, /does not name the reason \(code 200\)/],
  ])('%d is said in words, with the code', (code, text) => {
    expect(refusalOf(code).message).toMatch(text)
    expect(refusalOf(code).message).toContain(`code ${code}`)
  })

  it('has the broker’s own words', () => {
    expect(refusalOf(135, 'bad tenant').message).toContain(': bad tenant (code 135)')
  })

  it('may be for the login', () => {
    expect([4, 5, 134, 135, 3, 133].map(code => refusalOf(code).isOfLogin)).toEqual([
      true,
      true,
      true,
      true,
      false,
      false,
    ])
  })

  it('may come from the version of MQTT, and is tried again with another one then', () => {
    expect([1, 132, 134].map(code => refusalOf(code).mayBeProfile)).toEqual([true, true, false])
  })
})

describe('a DISCONNECT of the broker', () => {
  it('is said in words', () => {
    expect(disconnection(0x8e)).toBeInstanceOf(TakenOver)
    expect(disconnection(0x8b).message).toContain('it is shutting down (code 139)')
    expect(disconnection(undefined).message).toContain('reason code 0')
  })
})
