import { describe, expect, it } from 'vitest'
import { listOptions } from '../../src/config/options.js'
import { describeIssue, schemaProblems } from '../../src/config/problems.js'
import { configSchema } from '../../src/config/schema.js'

/** Words of the schema library's own messages. */
const foreign = /Invalid|Too (big|small)|expected |Unrecognized|undefined/

const wrongValues = [
  70_000,
  -1,
  1.5,
  1e12,
  '',
  'x',
  'x'.repeat(70_000),
  'mqtt://',
  [],
  [[]],
  [70_000],
  {},
  { x: 1 },
  true,
]

/** A configuration with one value at a path such as `tunnels[].origins`. */
function configWith(path: string, value: unknown): unknown {
  return path.split('.').reduceRight((inner: unknown, part) => {
    const name = part.replaceAll('[]', '')
    return { [name]: part.endsWith('[]') ? [inner] : inner }
  }, value)
}

describe('what is wrong with the value of an option', () => {
  it.each(listOptions().map(({ path }) => path))('is said of %s in our words', path => {
    for (const value of wrongValues) {
      const input = configWith(path, value)
      const { error } = configSchema.safeParse(input, { error: describeIssue })
      for (const { message } of schemaProblems(error?.issues ?? [], input)) {
        expect(`${JSON.stringify(value).slice(0, 20)}: ${message}`).not.toMatch(foreign)
        expect(message).not.toBe('')
      }
    }
  })
})
