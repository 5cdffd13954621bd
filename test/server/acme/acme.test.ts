import { once } from 'node:events'
import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls, type PeerCertificate } from 'node:tls'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../../helpers/gateway.js'
import { type Pebble, startPebble } from '../../helpers/pebble.js'
import { describeWith } from '../../helpers/requires.js'
import { recordingLog, temporaryDirectory, writeCertificate } from '../rig.js'

const day = 86_400_000

/** The certificate that a client of this name gets. */
async function served(
  { urls }: TestGateway,
  servername = 'a.example',
  protocols = ['http/1.1'],
): Promise<PeerCertificate> {
  const port = Number(new URL(urls.https).port)
  const where = { port, host: '127.0.0.1', servername, rejectUnauthorized: false }
  const socket = connectTls({ ...where, ALPNProtocols: protocols })
  await once(socket, 'secureConnect')
  const certificate = socket.getPeerCertificate()
  socket.destroy()
  return certificate
}

/** Resolves if a client that trusts only this CA connects as to `servername`. */
async function verified({ urls }: TestGateway, servername: string, ca: string): Promise<void> {
  const socket = connectTls({ port: Number(new URL(urls.https).port), host: '127.0.0.1', servername, ca })
  await once(socket, 'secureConnect')
  socket.destroy()
}

async function orders({ urls }: TestGateway): Promise<{ success: number; failure: number }> {
  const text = await (await fetch(`${urls.http}/metrics`)).text()
  const count = (result: string) =>
    Number(new RegExp(`mqway_acme_orders_total\\{result="${result}"\\} (\\d+)`).exec(text)?.[1])
  return { success: count('success'), failure: count('failure') }
}

const standIn = /stand-in/

describeWith(['pebble', 'pebble-challtestsrv'], 'a certificate by ACME', () => {
  let pebble: Pebble
  beforeAll(async () => {
    pebble = await startPebble()
  })
  afterAll(() => pebble.close())

  /** A gateway at the ports where the CA checks names. */
  async function start(
    acme: {
      readonly domains?: string[]
      readonly challenge?: 'http-01' | 'tls-alpn-01'
      readonly renewBefore?: string
    } = {},
    { ca = pebble, ...config }: ConfigInput & { readonly ca?: Pebble } = {},
  ) {
    const { log, line } = recordingLog()
    const data = config.data ?? join(await temporaryDirectory(), 'data')
    const gateway = await startTestGateway(
      {
        ...config,
        data,
        push: 'off',
        http: { ...config.http, port: ca.httpPort },
        https: {
          port: ca.tlsPort,
          acme: { domains: ['a.example'], agreeTerms: true, directory: ca.directory, ca: ca.ca, ...acme },
        },
      },
      log,
    )
    let closed: Promise<void> | undefined
    const close = (): Promise<void> => {
      closed ??= gateway.close()
      return closed
    }
    onTestFinished(close)
    const issued = () => line(/^The CA has issued a certificate/)
    return { gateway, data, line, close, issued }
  }

  /** A data directory with a certificate that has this many days left, and two days behind it. */
  async function store(days: number): Promise<string> {
    const data = join(await temporaryDirectory(), 'data')
    await mkdir(join(data, 'acme'), { recursive: true })
    const { pem } = await writeCertificate(await temporaryDirectory(), { name: 'a.example', validFor: days * day })
    await writeFile(join(data, 'acme', 'certificate.pem'), pem.key + pem.cert)
    await writeFile(join(data, 'acme', 'orders.json'), JSON.stringify({ directory: pebble.directory, orders: [] }))
    return data
  }

  it('is ordered by http-01, whatever the rules for other requests are', async () => {
    const { gateway, issued } = await start(
      { domains: ['a.example', 'B.example'], challenge: 'http-01' },
      {
        hosts: ['other.example'],
        deny: ['/./'],
        public: 'off',
        limits: { allow: ['10.0.0.0/8'] },
        http: { redirect: true },
      },
    )
    expect((await served(gateway)).subject.O).toMatch(standIn)
    expect((await fetch(`${gateway.urls.http}/`, { redirect: 'manual' })).status).not.toBe(200)
    await issued()
    await verified(gateway, 'a.example', await pebble.root())
    await verified(gateway, 'b.example', await pebble.root())
  })

  it('is ordered by tls-alpn-01, and served to clients of HTTP/2, of HTTP/1.1 and without ALPN', async () => {
    const { gateway, issued } = await start({ challenge: 'tls-alpn-01' })
    await issued()
    await verified(gateway, 'a.example', await pebble.root())
    for (const protocols of [['h2', 'http/1.1'], ['http/1.1'], []])
      expect((await served(gateway, 'a.example', protocols)).issuer.CN).toMatch(/^Pebble/)
    await expect(served(gateway, 'a.example', ['acme-tls/1'])).rejects.toThrow(/no application protocol/)
    expect(await orders(gateway)).toEqual({ success: 1, failure: 0 })
  })

  it('is stored for this user only, and used after a restart without an order', async () => {
    const first = await start()
    await first.issued()
    const { serialNumber } = await served(first.gateway)
    await first.close()
    const directory = join(first.data, 'acme')
    expect((await stat(directory)).mode & 0o777).toBe(0o700)
    expect((await readdir(directory)).sort()).toEqual(['account.pem', 'certificate.pem', 'orders.json'])
    for (const file of await readdir(directory)) expect((await stat(join(directory, file))).mode & 0o777).toBe(0o600)

    const second = await start({}, { data: first.data })
    expect((await served(second.gateway)).serialNumber).toBe(serialNumber)
    const { msg } = await second.line(/^The next order of the certificate is at/)
    const next = Date.parse(/at (.*)$/.exec(msg)?.[1] ?? '')
    expect((next - Date.now()) / day).toBeGreaterThan(59)
    expect((next - Date.now()) / day).toBeLessThan(64)
    expect(await orders(second.gateway)).toEqual({ success: 0, failure: 0 })
    await second.close()

    const third = await start({ domains: ['a.example', 'c.example'] }, { data: first.data })
    expect((await served(third.gateway)).serialNumber).toBe(serialNumber)
    await third.issued()
    await verified(third.gateway, 'c.example', await pebble.root())
  })

  it('is renewed while the gateway runs, and connections stay', async () => {
    const brief = await startPebble({ validity: 3 })
    onTestFinished(() => brief.close())
    const { gateway, issued } = await start({ renewBefore: '1d' }, { ca: brief })
    await issued()
    const socket = connectTls({ port: brief.tlsPort, host: '127.0.0.1', rejectUnauthorized: false })
    onTestFinished(() => void socket.destroy())
    await once(socket, 'secureConnect')
    const before = socket.getPeerCertificate().serialNumber
    await issued()
    expect((await served(gateway)).serialNumber).not.toBe(before)
    socket.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n')
    expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1.1 200/)
    expect(await orders(gateway)).toEqual({ success: 2, failure: 0 })
  })

  it('is renewed at the start if little of its time is left', async () => {
    const { gateway, issued } = await start({}, { data: await store(0.5) })
    expect((await served(gateway)).issuer.CN).toBe('a.example')
    await issued()
    await verified(gateway, 'a.example', await pebble.root())
  })

  it.each([
    ['http-01', /a\.example: .*(?:refused|127\.0\.0\.9)/],
    ['tls-alpn-01', /a\.example: .*(?:refused|127\.0\.0\.9)/],
  ] as const)('stays when its renewal by %s fails, and the log has the reason of the CA', async (challenge, reason) => {
    await pebble.move('a.example', '127.0.0.9')
    onTestFinished(() => pebble.move('a.example', '127.0.0.1'))
    const { gateway, data, line } = await start({ challenge }, { data: await store(0.5) })
    const stored = await readFile(join(data, 'acme', 'certificate.pem'), 'utf8')
    const { msg, level } = await line(/^Failed to get a certificate, the old one stays: /)
    expect(level).toBe(50)
    expect(msg).toMatch(reason)
    const { msg: next } = await line(/^The next order of the certificate is at/)
    const minutes = (Date.parse(/at (.*)$/.exec(next)?.[1] ?? '') - Date.now()) / 60_000
    expect(minutes).toBeGreaterThan(4.5)
    expect(minutes).toBeLessThan(6)
    expect((await served(gateway)).issuer.CN).toBe('a.example')
    expect(await readFile(join(data, 'acme', 'certificate.pem'), 'utf8')).toBe(stored)
    expect(await orders(gateway)).toEqual({ success: 0, failure: 1 })
  })

  it('is ordered after a reload, if the ACME server was away at the start', async () => {
    await pebble.stop()
    const { gateway, line, issued } = await start()
    const { msg } = await line(/^Failed to get a certificate/)
    expect(msg).toMatch(/ECONNREFUSED/)
    expect((await served(gateway)).subject.O).toMatch(standIn)
    await pebble.start()
    await gateway.gateway.reload()
    await issued()
    await verified(gateway, 'a.example', await pebble.root())
  })

  it('is ordered four times in an hour at most, also by a gateway that is started again and again', async () => {
    const data = await store(0.5)
    const orders = [50, 40, 30, 20].map(minutes => new Date(Date.now() - minutes * 60_000).toISOString())
    await writeFile(join(data, 'acme', 'orders.json'), JSON.stringify({ directory: '', orders }))
    const { gateway, line } = await start({}, { data })
    await gateway.gateway.reload()
    const { msg } = await line(/^The next order of the certificate is at/)
    expect(Math.round((Date.parse(/at (.*)$/.exec(msg)?.[1] ?? '') - Date.now()) / 60_000)).toBe(10)
    expect((await served(gateway)).issuer.CN).toBe('a.example')
  })

  it('is no file that is served, not even through a link', async () => {
    const site = await temporaryDirectory()
    const data = await store(90)
    await symlink(join(data, 'acme', 'certificate.pem'), join(site, 'certificate.txt'))
    await symlink(data, join(site, 'own'))
    await writeFile(join(site, 'page.txt'), 'page')
    const { gateway } = await start({}, { data, public: site })
    const status = async (path: string) => (await fetch(gateway.urls.http + path)).status
    expect(await status('/page.txt')).toBe(200)
    for (const path of ['/certificate.txt', '/own/acme/account.pem', '/own/acme/orders.json'])
      expect(await status(path), path).toBe(404)
  })
})

it('an order ends with the gateway, also if the ACME server never answers', async () => {
  const silent = createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  onTestFinished(() => void silent.close())
  const address = silent.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  const gateway = await startTestGateway({
    data: join(await temporaryDirectory(), 'data'),
    https: { acme: { domains: ['a.example'], agreeTerms: true, directory: `https://127.0.0.1:${address.port}/` } },
  })
  const [socket] = await once(silent, 'connection')
  const left = once(socket.resume(), 'close')
  await gateway.close()
  await left
})
