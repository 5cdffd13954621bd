import { mkdir, mkdtemp, readFile, rename, rm, stat, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { LineFile } from '../../src/base/line-file.js'
import { eventually } from '../helpers/wait.js'
import { recordingLog } from '../server/rig.js'

async function start(path?: string) {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-lines-'))
  const { log, line } = recordingLog()
  let dropped = 0
  const onDropped = (lines: number): void => {
    dropped += lines
  }
  const file = path ?? join(directory, 'access.log')
  const lines = await LineFile.open({ path: file, log, onDropped })
  onTestFinished(async () => {
    await lines.close()
    await rm(directory, { recursive: true, force: true })
  })
  const content = () => readFile(file, 'utf8').catch(() => '')
  return { lines, file, line, content, dropped: () => dropped }
}

describe('a file of lines', () => {
  it('has every line in order, is readable by its group at most, and is complete when closed', async () => {
    const { lines, file, content, dropped } = await start()
    const written = Array.from({ length: 1000 }, (_, index) => `line ${index}`)
    for (const line of written) lines.write(line)
    await lines.close()
    expect(await content()).toBe(`${written.join('\n')}\n`)
    expect((await stat(file)).mode & 0o027).toBe(0)
    lines.write('late')
    expect(dropped()).toBe(1)
  })

  it('is opened anew when it was renamed, and loses no line', async () => {
    const { lines, file, content } = await start()
    lines.write('before')
    await eventually(async () => (await content()) === 'before\n')
    await rename(file, `${file}.1`)
    lines.write('between')
    await lines.reopen()
    lines.write('after')
    await lines.close()
    expect((await readFile(`${file}.1`, 'utf8')) + (await content())).toBe('before\nbetween\nafter\n')
    expect(await content()).toContain('after\n')
  })

  it('may be truncated by others', async () => {
    const { lines, file, content } = await start()
    lines.write('before')
    await eventually(async () => (await content()) === 'before\n')
    await truncate(file)
    lines.write('after')
    await lines.close()
    expect(await content()).toBe('after\n')
  })

  it('drops and counts what the disk does not take in time', async () => {
    const { lines, content, dropped } = await start()
    const line = 'x'.repeat(1023)
    for (let count = 0; count < 1500; count++) lines.write(line)
    expect(dropped()).toBe(1500 - 1024)
    await lines.close()
    expect(await content()).toHaveLength(1024 ** 2)
  })

  it('counts what does not fit on a full disk, says so once, and goes on', async () => {
    const { lines, line, dropped } = await start('/dev/full')
    lines.write('a')
    lines.write('b')
    await line(/Failed to write the access log/)
    await eventually(() => dropped() === 2)
    lines.write('c')
    await eventually(() => dropped() === 3)
  })

  it('stays as it is where it cannot be opened again', async () => {
    const { lines, file, line } = await start()
    await rename(file, `${file}.1`)
    await mkdir(file)
    await lines.reopen()
    await line(/Failed to open the access log again/)
    lines.write('still')
    await lines.close()
    expect(await readFile(`${file}.1`, 'utf8')).toBe('still\n')
  })
})
