import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { openClientId, randomClientId } from '../../../src/sources/mqtt/client-id.js'

async function temporary(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-id-'))
  onTestFinished(() => rm(directory, { recursive: true, force: true }))
  return directory
}

describe('the client id of push', () => {
  it('is random, and names the machine', () => {
    const ids = new Set(Array.from({ length: 100 }, randomClientId))
    expect(ids.size).toBe(100)
    for (const id of ids) expect(id).toMatch(/^mqway-[0-9a-zA-Z-]{0,32}-[0-9a-f]{20}$/)
  })

  it('is the same after each start with the same data, in a file for its owner alone', async () => {
    const data = await temporary()
    const first = await openClientId(data)
    const second = await openClientId(data)
    expect(second).toBe(first)
    expect((await stat(join(data, 'push-client-id.json'))).mode & 0o777).toBe(0o600)
    expect(await openClientId(await temporary())).not.toBe(first)
  })

  it('is another one for each start where nothing is kept', async () => {
    expect(await openClientId(undefined)).not.toBe(await openClientId(undefined))
  })

  it.each(['', '{', '{"clientId":""}', '[]'])('is made anew where its file is damaged: %j', async text => {
    const data = await temporary()
    const file = join(data, 'push-client-id.json')
    await writeFile(file, text)
    const clientId = await openClientId(data)
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual({ clientId })
  })

  it('cannot be had where its file cannot be written', async () => {
    const data = join(await temporary(), 'file')
    await writeFile(data, '')
    await expect(openClientId(data)).rejects.toThrow(
      /^the client id of push cannot be written to .*push-client-id\.json: /,
    )
  })
})
