import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { handshake } from '../helpers/handshake.js'
import { type ServingProgram, serving } from '../helpers/program.js'

// The requests that nginx makes of those of a page at https://app.example, with less in its configuration than it needs.
describe('behind a proxy that does not pass everything on', () => {
  const cwd = mkdtempSync(join(tmpdir(), 'mqway-'))
  let gateway: ServingProgram
  beforeAll(async () => {
    gateway = await serving(['--http-port', '0', '--https-port', 'off', '--mqtt-port', 'off', '--data', 'none'], cwd)
  })
  afterAll(async () => {
    gateway.child.kill('SIGKILL')
    await gateway.exited()
    rmSync(cwd, { recursive: true })
  })

  const webSocket = (path: string): string => `${gateway.url('http').replace('http', 'ws')}${path}`

  /** Headers of a handshake, without those of one hop. */
  const handshakeHeaders = { 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==', 'sec-websocket-version': '13' }

  const get = (path: string, headers: Record<string, string>): Promise<{ status: number | undefined; text: string }> =>
    new Promise((resolve, reject) => {
      const sent = request(`${gateway.url('http')}${path}`, { headers, agent: false }, async response => {
        const chunks: Buffer[] = []
        for await (const chunk of response) chunks.push(chunk)
        resolve({ status: response.statusCode, text: String(Buffer.concat(chunks)) })
      })
      sent.on('error', reject).end()
    })

  it.each([
    ['/mqtt', 'tunnels.origins'],
    ['/v1/socket', 'push.origins'],
  ])('a handshake at %s without the Host of the page says so, and names %s', async (path, option) => {
    const headers = { origin: 'https://app.example' }
    const { status, text } = await handshake(webSocket(path), {
      protocol: path === '/mqtt' ? 'mqtt' : 'mqway',
      headers,
    })
    expect(status).toBe(403)
    expect(text).toContain(`${option} does not allow https://app.example; Host is localhost:`)
    expect(text).toContain('a proxy in front has to pass Host on')
  })

  it('a request for events without the Host of the page says so, and names push.origins', async () => {
    const { status, text } = await get('/v1/events?topic=a', { origin: 'https://app.example' })
    expect(status).toBe(403)
    expect(JSON.parse(text).detail).toMatch(
      /push\.origins does not allow https:\/\/app\.example; Host is localhost:\d+/,
    )
  })

  it('a page of the same host at another port is not blamed on a proxy', async () => {
    const { text } = await handshake(webSocket('/mqtt'), { headers: { origin: 'http://localhost:3000' } })
    expect(text).toBe('Pages of this origin may not connect: tunnels.origins does not allow http://localhost:3000\n')
  })

  it('a handshake with the name of an upstream as its Host says so', async () => {
    const { status, text } = await handshake(webSocket('/mqtt'), { headers: { host: 'mqway_backend' } })
    expect(status).toBe(421)
    expect(text).toMatch(/option hosts .*Host is mqway_backend; a proxy in front has to pass on the Host/)
  })

  it.each(['/mqtt', '/v1/socket'])('a handshake at %s without Upgrade and Connection says so', async path => {
    const { status, text } = await get(path, { ...handshakeHeaders, connection: 'close' })
    expect(status).toBe(426)
    expect(text).toMatch(/without Upgrade and Connection: a proxy in front has to pass both on/)
    expect((await get(path, {})).text).not.toContain('proxy')
  })
})
