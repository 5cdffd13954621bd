import { describe, expect, it } from 'vitest'
import { nearestName, suggestion } from '../../src/base/suggestion.js'

describe('the name that somebody meant', () => {
  const names = ['serve', 'check', 'import', 'url', 'http-port', 'host', 'key', 'user']

  it.each([
    ['chek', 'check'],
    ['ulr', 'url'],
    ['http-prot', 'http-port'],
    ['usr', 'user'],
    ['htpport', 'http-port'],
  ])('%s: %s', (written, meant) => {
    expect(nearestName(written, names)).toBe(meant)
  })

  it.each(['foo', 'x', 'constructor', 'no-such', 'tiger', 'status'])('%s: none is near', written => {
    expect(nearestName(written, names)).toBeUndefined()
  })

  it('is in the error where there is one', () => {
    expect([suggestion('check', '.'), suggestion(undefined, '.')]).toEqual(['; did you mean check?', '.'])
  })
})
