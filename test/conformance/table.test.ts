import { readdirSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

const directory = new URL('.', import.meta.url)
const table = readFileSync(new URL('../../docs/mqtt-conformance.md', directory), 'utf8')

/** Numbered statements of MQTT 5, by section. */
const counts = { 1: 5, 2: 7, 3: 175, 4: 60, 6: 4 }

const rows = [...table.matchAll(/^\| MQTT-([\d.]+-\d+) \| (.+) \| (.+) \|$/gm)].map(
  ([, number = '', , tests = '']) => ({
    number,
    files: [...tests.matchAll(/`([^`]+)`/g)].map(([, file = '']) => file),
    isExplained: tests.startsWith('– '),
  }),
)

/** Files in whose test names a statement is, by its number. */
const tested = new Map<string, Set<string>>()
for (const file of readdirSync(directory).filter(name => name.endsWith('.test.ts'))) {
  for (const [, number = ''] of readFileSync(new URL(file, directory), 'utf8').matchAll(/\[MQTT-(\d[\d.]*-\d+)\]/g))
    tested.set(number, (tested.get(number) ?? new Set()).add(file))
}

it('every statement is in the table once', () => {
  expect(new Set(rows.map(({ number }) => number)).size).toBe(rows.length)
  for (const [section, count] of Object.entries(counts))
    expect(rows.filter(({ number }) => number.startsWith(`${section}.`))).toHaveLength(count)
})

it('the table names the files whose tests have the number of a statement, or says why there are none', () => {
  const expected = rows.map(({ number, isExplained }) => [
    number,
    isExplained ? [] : [...(tested.get(number) ?? ['none'])].sort(),
  ])
  expect(rows.map(({ number, files }) => [number, [...files].sort()])).toEqual(expected)
  const numbers = new Set(rows.map(({ number }) => number))
  expect([...tested.keys()].filter(number => !numbers.has(number))).toEqual([])
})
