import { readFile } from 'node:fs/promises'
import { describe, expect, it, vi } from 'vitest'
import { clientCode, clientTypes } from '../../scripts/build-client.js'

describe('public/mqway.js', () => {
  it('is what src/client says, and has less than 14 KB', async () => {
    const built = await readFile('public/mqway.js', 'utf8')
    expect(built === (await clientCode()), 'not up to date: npm run build').toBe(true)
    expect(Buffer.byteLength(built)).toBeLessThan(14_336)
  })

  it('imports nothing, and exports connect', async () => {
    const built = await readFile('public/mqway.js', 'utf8')
    expect(built).not.toMatch(/\bimport\b/)
    const { connect, ...others } = await import('mqway/client')
    expect(others).toEqual({})
    const client = connect({ url: 'http://127.0.0.1:1' })
    expect(client.state).toEqual({ phase: 'idle' })
    client.close()
  })

  it('asks for the gateway’s address where there is no page, or one from a file', async () => {
    const { connect } = await import('mqway/client')
    expect(() => connect({ topics: ['#'] })).toThrow(/^connect needs the option url: /)
    vi.stubGlobal('location', { origin: 'null' })
    expect(() => connect({ topics: ['#'] })).toThrow(/^connect needs the option url: /)
    vi.unstubAllGlobals()
  })

  it('has declarations of its own, in one file', async () => {
    const types = await readFile('public/mqway.d.ts', 'utf8')
    expect(types === (await clientTypes()), 'not up to date: npm run build').toBe(true)
    expect(types).not.toMatch(/^(import|export .* from)\b/m)
    expect(types).toContain('export declare function connect(')
  })
})
