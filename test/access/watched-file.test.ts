import { mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, describe, expect, it } from 'vitest'
import { WatchedFile } from '../../src/access/watched-file.js'
import { StartError } from '../../src/base/start-error.js'
import { eventually } from '../helpers/wait.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-watched-'))
afterAll(() => rmSync(directory, { recursive: true }))

let files = 0
async function watch(text: string) {
  files += 1
  const path = join(directory, String(files))
  writeFileSync(path, text)
  const lines: string[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => lines.push(line) })
  const parse = (content: Buffer): string => {
    if (content.includes('bad')) throw new Error('line 1 is bad')
    return content.toString()
  }
  const file = await WatchedFile.start({ path, what: 'the list', parse, log, pollInterval: 5 })
  return { path, file, lines }
}

describe('a watched file', () => {
  it('is read again when it is written, and when it is replaced', async () => {
    const { path, file, lines } = await watch('one')
    expect(file.current).toBe('one')
    writeFileSync(path, 'two!')
    await eventually(() => file.current === 'two!')
    writeFileSync(`${path}.new`, 'three')
    renameSync(`${path}.new`, path)
    await eventually(() => file.current === 'three')
    expect(lines.join('')).toContain('reloaded the list')
    await file.close()
  })

  it('keeps what it said before while it is wrong or gone, and logs why', async () => {
    const { path, file, lines } = await watch('good')
    writeFileSync(path, 'bad one')
    await eventually(() => lines.length === 1)
    expect(lines[0]).toContain('failed to reload the list, keeping its last content: line 1 is bad')
    rmSync(path)
    await eventually(() => lines.length === 2)
    expect(lines[1]).toContain('ENOENT')
    expect(file.current).toBe('good')
    writeFileSync(path, 'good again')
    await eventually(() => file.current === 'good again')
    await file.close()
  })

  it('is read at once when that is asked for', async () => {
    const { path, file } = await watch('one')
    writeFileSync(path, 'two')
    await file.reload()
    expect(file.current).toBe('two')
    await file.close()
    await file.close()
  })

  it('has to be right in the beginning', async () => {
    await expect(watch('bad')).rejects.toThrow(StartError)
    await expect(watch('bad')).rejects.toThrow(/^the list .*\/\d+: line 1 is bad$/)
  })

  it('is not read when it is huge', async () => {
    const { path, file, lines } = await watch('one')
    truncateSync(path, 17 * 1024 * 1024)
    await eventually(() => lines.length === 1)
    expect(lines[0]).toContain('has 17825792 bytes')
    expect(file.current).toBe('one')
    await file.close()
  })
})
