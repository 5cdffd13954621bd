import { isUtf8 } from 'node:buffer'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { isText } from '../../src/mqtt/text.js'
import { hasForbiddenCharacter } from '../../src/topics/topic-syntax.js'

const edges = [
  0, 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff,
]
const characters = [
  0xa0, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xfdcf, 0xfdd0, 0xfdef, 0xfdf0, 0xfffd, 0xfffe, 0xffff, 0x1_0000, 0x1_fffe,
  0x10_fffd, 0x10_ffff,
]
const piece = fc.oneof(
  fc.constantFrom(...edges).map(byte => Buffer.from([byte])),
  fc.nat(255).map(byte => Buffer.from([byte])),
  fc.constantFrom(...characters).map(code => Buffer.from(String.fromCodePoint(code))),
  fc.string({ unit: 'binary', maxLength: 3 }).map(text => Buffer.from(text)),
  // Surrogates, and characters with more bytes than needed.
  fc.constantFrom('eda080', 'edbfbf', 'e08080', 'c080', 'f0808080', 'f4908080').map(hex => Buffer.from(hex, 'hex')),
)

it('bytes are a text if they are UTF-8 without forbidden characters', () => {
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 5 }), fc.nat(3), (pieces, before) => {
      const text = Buffer.concat(pieces)
      const bytes = Buffer.concat([Buffer.alloc(before), text, Buffer.alloc(1)])
      const expected = isUtf8(text) && !hasForbiddenCharacter(text.toString())
      expect(isText(bytes, before, before + text.length)).toBe(expected)
    }),
    { numRuns: 5000 },
  )
})
