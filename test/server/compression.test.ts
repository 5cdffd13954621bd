import { once } from 'node:events'
import { mkdir, utimes, writeFile } from 'node:fs/promises'
import { createServer, request as httpRequest, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { promisify } from 'node:util'
import zlib from 'node:zlib'
import { describe, expect, it, onTestFinished, test } from 'vitest'
import { compileClientResolver } from '../../src/access/client-address.js'
import { configSchema } from '../../src/config/schema.js'
import { acceptedOf } from '../../src/http/accept-encoding.js'
import { Compressor } from '../../src/http/compressor.js'
import { createApp } from '../../src/server/app.js'
import { EncodedFiles } from '../../src/server/encoded-files.js'
import { registerEndpointHints, registerPages } from '../../src/server/pages.js'
import { recordingLog, requestLimits, takenPort, temporaryDirectory, testMetrics } from './rig.js'

const script = 'const a = 1 // the same again and again\n'.repeat(500)
const decoders = { br: zlib.brotliDecompressSync, gzip: zlib.gunzipSync }

interface Answer {
  readonly status: number | undefined
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
  readonly text: string
}

/** Serves a directory with `files`, compressed as `compression` says. */
async function serve(files: Readonly<Record<string, string | Buffer>>, compression: object = {}) {
  const directory = await temporaryDirectory()
  await mkdir(join(directory, 'sub'))
  for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content)
  const config = configSchema.parse({ compression })
  if (config.compression === 'off') throw new Error('compression is off')
  const { log } = recordingLog()
  const resolveClient = compileClientResolver([])
  const app = createApp({ resolveClient, limits: requestLimits, log, metrics: testMetrics() })
  const compressor = new Compressor()
  const encoded = new EncodedFiles(config.compression, compressor)
  const ownFiles = [{ name: 'secret', path: join(directory, 'secret.js.br') }]
  await registerPages(app, { directory, resolveClient, encoded, ownFiles, log })
  registerEndpointHints(app, () => false)
  await app.ready()
  const server = createServer((request, response) => app.routing(request, response)).listen(0, '127.0.0.1')
  onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await app.close()
  })
  await once(server, 'listening')
  const port = takenPort(server.address())
  const get = async (path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> => {
    const asked = httpRequest({ host: '127.0.0.1', port, path, method, headers, agent: false }).end()
    const [response] = (await once(asked, 'response')) as [IncomingMessage]
    const chunks: Buffer[] = []
    for await (const chunk of response) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    const coding = response.headers['content-encoding']
    const decode = coding === 'br' || coding === 'gzip' ? decoders[coding] : (raw: Buffer) => raw
    const text = body.length === 0 ? '' : decode(body).toString()
    return { status: response.statusCode, headers: response.headers, body, text }
  }
  return { directory, get, compressor }
}

describe('a file', () => {
  it.each([
    ['br, gzip', 'br'],
    ['gzip, deflate', 'gzip'],
    ['gzip;q=1, br;q=0.5', 'gzip'],
    ['br;q=0, *', Compressor.has('zstd') ? 'zstd' : 'gzip'],
    ['x-gzip', 'gzip'],
    ['deflate', undefined],
    ['', undefined],
  ])('is compressed for a client that accepts %j as %s', async (accepted, coding) => {
    const { get } = await serve({ 'a.js': script })
    const { headers, body, text } = await get('/a.js', { 'accept-encoding': accepted })
    expect(headers['content-encoding']).toBe(coding)
    expect(headers['content-length']).toBe(String(body.length))
    expect(headers.vary).toBe('accept-encoding')
    expect(headers['content-type']).toBe('application/javascript; charset=utf-8')
    if (coding !== 'zstd') expect(text).toBe(script)
    expect(body.length < script.length).toBe(coding !== undefined)
  })

  it('has the same weak ETag in every coding, with which a client asks again', async () => {
    const { get } = await serve({ 'a.js': script })
    const [plain, encoded] = [await get('/a.js'), await get('/a.js', { 'accept-encoding': 'br' })]
    expect(encoded.headers.etag).toMatch(/^W\//)
    expect(encoded.headers.etag).toBe(plain.headers.etag)
    const again = await get('/a.js', { 'accept-encoding': 'br', 'if-none-match': encoded.headers.etag ?? '' })
    expect([again.status, again.headers.vary, again.headers['content-encoding']]).toEqual([
      304,
      'accept-encoding',
      undefined,
    ])
  })

  it('answers HEAD as GET', async () => {
    const { get } = await serve({ 'a.js': script })
    const accepted = { 'accept-encoding': 'gzip' }
    const [head, full] = [await get('/a.js', accepted, 'HEAD'), await get('/a.js', accepted)]
    expect(head.body).toHaveLength(0)
    for (const name of ['content-encoding', 'content-length', 'etag', 'vary', 'content-type'])
      expect(head.headers[name], name).toBe(full.headers[name])
  })

  it('is not compressed in a range', async () => {
    const { get } = await serve({ 'a.js': script })
    const { status, headers, text } = await get('/a.js', { 'accept-encoding': 'br', range: 'bytes=0-9' })
    expect([status, headers['content-encoding'], text]).toEqual([206, undefined, script.slice(0, 10)])
  })

  it.each([
    ['small.js', 'export {}'],
    ['picture.png', script],
    ['random.js', zlib.gzipSync(Buffer.from(Array.from({ length: 4000 }, (_, i) => (i * i * 7919) % 251)))],
  ])('%s, where it does not help, is sent as it is', async (name, content) => {
    const { get } = await serve({ [name]: content })
    for (const _ of [1, 2]) {
      const { headers, body } = await get(`/${name}`, { 'accept-encoding': 'br, gzip' })
      expect(headers['content-encoding']).toBeUndefined()
      expect(body).toEqual(Buffer.from(content))
    }
  })

  it('is compressed anew when it changes', async () => {
    const { directory, get } = await serve({ 'a.js': script })
    const accepted = { 'accept-encoding': 'br' }
    expect((await get('/a.js', accepted)).text).toBe(script)
    await writeFile(join(directory, 'a.js'), `${script}// more`)
    expect((await get('/a.js', accepted)).text).toBe(`${script}// more`)
  })

  it('is sent as it is while two others are compressed', async () => {
    const { get, compressor } = await serve({ 'a.js': script })
    const waiting: ((data: Buffer) => void)[] = []
    const others = [1, 2].map(() => compressor.compress(() => new Promise(resolve => waiting.push(resolve)), 'gzip'))
    expect((await get('/a.js', { 'accept-encoding': 'br' })).headers['content-encoding']).toBeUndefined()
    for (const resolve of waiting) resolve(Buffer.alloc(100))
    await Promise.all(others)
    expect((await get('/a.js', { 'accept-encoding': 'br' })).headers['content-encoding']).toBe('br')
  })

  it('is compressed once for many requests at once', async () => {
    const { get } = await serve({ 'index.html': script })
    const answers = await Promise.all(Array.from({ length: 50 }, () => get('/', { 'accept-encoding': 'gzip' })))
    expect(new Set(answers.map(({ headers }) => headers['content-encoding']))).toEqual(new Set(['gzip']))
    expect(new Set(answers.map(({ text }) => text))).toEqual(new Set([script]))
  })
})

describe('a compressed file beside a file', () => {
  const br = zlib.brotliCompressSync('other content, to tell them apart')
  const gz = zlib.gzipSync('gzipped')

  it('is served in its place, with the type of the file', async () => {
    const { get } = await serve({ 'a.js': script, 'a.js.br': br, 'a.js.gz': gz })
    const { headers, body } = await get('/a.js', { 'accept-encoding': 'gzip, br' })
    expect(body).toEqual(br)
    expect(headers).toMatchObject({
      'content-encoding': 'br',
      'content-type': 'application/javascript; charset=utf-8',
      'content-length': String(br.length),
      vary: 'accept-encoding',
      'cache-control': 'no-cache',
    })
    expect((await get('/a.js', { 'accept-encoding': 'gzip' })).body).toEqual(gz)
    expect((await get('/a.js')).text).toBe(script)
  })

  it('is served for the index file of a directory, also if that is small', async () => {
    const { get } = await serve({ 'sub/index.html': '<p>x', 'sub/index.html.br': br })
    expect((await get('/sub/', { 'accept-encoding': 'br' })).body).toEqual(br)
  })

  it('is not served if it is older than the file', async () => {
    const { directory, get } = await serve({ 'a.js': script, 'a.js.br': br })
    await utimes(join(directory, 'a.js.br'), 1, 1)
    expect((await get('/a.js', { 'accept-encoding': 'br' })).text).toBe(script)
  })

  it('is not served if it is a file of mqway itself', async () => {
    const { get } = await serve({ 'secret.js': script, 'secret.js.br': br })
    expect((await get('/secret.js', { 'accept-encoding': 'br' })).text).toBe(script)
  })

  it('is served in zstd, which not every version of Node.js has', async () => {
    const { get } = await serve({ 'a.js': script, 'a.js.zst': 'zstd content' })
    const { headers, body } = await get('/a.js', { 'accept-encoding': 'zstd' })
    expect([headers['content-encoding'], body.toString()]).toEqual(['zstd', 'zstd content'])
  })
})

test('Accept-Encoding: weights, the wildcard, and what is not valid', () => {
  const offered = ['br', 'zstd', 'gzip'] as const
  expect(acceptedOf(undefined, offered)).toEqual([])
  expect(acceptedOf('*', offered)).toEqual(['br', 'zstd', 'gzip'])
  expect(acceptedOf('gzip ; q=0.9 , BR;q=0.800', offered)).toEqual(['gzip', 'br'])
  expect(acceptedOf('br;q=2, gzip;q=x, zstd', offered)).toEqual(['zstd'])
  expect(acceptedOf('gzip;q=0, *;q=0.1', offered)).toEqual(['br', 'zstd'])
  expect(acceptedOf(','.repeat(10_000), offered)).toEqual([])
})

test('what is compressed is what comes out', async () => {
  const compressor = new Compressor()
  const compressed = await compressor.compress(() => Buffer.from(script), 'gzip')
  expect((await promisify(zlib.gunzip)(compressed ?? Buffer.alloc(0))).toString()).toBe(script)
})
