import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hasForbiddenCharacter } from '../../src/topics/forbidden-characters.js'

describe('characters that a text of MQTT must not have', () => {
  it.each(['\0', '\u0001', '\u001f', '\u007f', '\u009f', '\ud800', '\udfff', '\ufdd0', '\uffff', '\u{1fffe}'])(
    'are found: %j',
    character => {
      for (const text of [character, `a${character}`, `${character}b`, `é${character}/ü`, `\u{2a6d4}${character}`])
        expect(hasForbiddenCharacter(text)).toBe(true)
    },
  )

  it('are found as by a regular expression', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 8 }), text => {
        const expected = /[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]/u.test(text)
        expect(hasForbiddenCharacter(text)).toBe(expected)
      }),
      { numRuns: 5000 },
    )
  })

  it('are no others', () => {
    for (const text of ['', 'a/b', 'é/ü', 'A\u{2a6d4}', '\ufffd', '\u2028', ' ', '日本'])
      expect(hasForbiddenCharacter(text)).toBe(false)
  })
})
