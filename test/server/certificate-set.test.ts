import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type ConnectionOptions, connect as connectTls, type PeerCertificate, type TLSSocket } from 'node:tls'
import { expect, it, onTestFinished } from 'vitest'
import { makeCertificates } from '../broker/upstream/certificates.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { temporaryDirectory, writeCertificate } from './rig.js'

const day = 86_400_000

/** A gateway with a.example's certificate, and one of each of the other hosts. */
async function start(clientCertificates?: People['access']['clientCertificates']) {
  const directory = await temporaryDirectory()
  const make = (name: string, days: number) =>
    writeCertificate(directory, { name: `${name}.example`, files: name, validFor: days * day })
  const files = (name: string) => ({ cert: join(directory, `${name}.crt`), key: join(directory, `${name}.key`) })
  for (const [name, days] of [
    ['a', 90],
    ['b', 50],
    ['c', 70],
  ] as const)
    await make(name, days)
  const gateway = await startTestGateway({
    https: {
      ...files('a'),
      certificates: [
        { hosts: ['b.example', '*.b.example'], ...files('b') },
        { hosts: ['/^c\\d*\\.b?example$|b/'], ...files('c') },
      ],
    },
    ...(clientCertificates && {
      access: { clientCertificates, rules: [{ to: 'authenticated', subscribe: ['#'] }] },
    }),
  })
  onTestFinished(() => gateway.close())
  return { gateway, make, files }
}

async function open({ urls }: TestGateway, servername: string, more: ConnectionOptions = {}): Promise<TLSSocket> {
  const port = Number(new URL(urls.https).port)
  const socket = connectTls({ port, host: '127.0.0.1', servername, rejectUnauthorized: false, ...more })
  onTestFinished(() => void socket.destroy())
  await once(socket, 'secureConnect')
  return socket
}

const shownTo = async (gateway: TestGateway, servername: string): Promise<PeerCertificate> =>
  (await open(gateway, servername)).getPeerCertificate()

/** The status of a poll, sent with this certificate. */
async function pollStatus(gateway: TestGateway, servername: string, own: ConnectionOptions): Promise<number> {
  const socket = await open(gateway, servername, own)
  socket.write('GET /v1/poll?topic=a&timeout=0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  const [answer] = await once(socket, 'data')
  return Number(String(answer).slice(9, 12))
}

describeWith(['openssl'], 'https.certificates', () => {
  it('is chosen by the requested server name', async () => {
    const { gateway } = await start()
    for (const [servername, name] of [
      ['', 'a'],
      ['a.example', 'a'],
      ['b.example', 'b'],
      ['B.Example', 'b'],
      ['x.y.b.example', 'b'],
      ['xb.example', 'c'],
      ['c12.example', 'c'],
      ['cc.example', 'a'],
    ] as const)
      expect([servername, (await shownTo(gateway, servername)).subject.CN]).toEqual([servername, `${name}.example`])
  })

  it('is read again as the other one is, and its metric is of the one that expires first', async () => {
    const { gateway, make } = await start()
    const expiry = async (): Promise<number> => {
      const text = await (await fetch(`${gateway.urls.http}/metrics`)).text()
      return Number(/^mqway_certificate_expiry_seconds (.*)$/m.exec(text)?.[1])
    }
    const inDays = (time: number): number => Math.round((time * 1000 - Date.now()) / day)
    expect(inDays(await expiry())).toBe(50)
    await make('b', 60)
    await gateway.gateway.reload()
    expect(inDays(await expiry())).toBe(60)
    const { valid_to: validTo } = await shownTo(gateway, 'b.example')
    expect(inDays(Date.parse(validTo) / 1000)).toBe(60)
  })

  it('takes certificates of clients at each name', async () => {
    const ca = makeCertificates()
    onTestFinished(() => rm(ca.directory, { recursive: true }))
    const { gateway } = await start({ ca: ca.ca })
    for (const servername of ['a.example', 'b.example']) {
      const own = { cert: readFileSync(ca.client.cert), key: readFileSync(ca.client.key) }
      expect([servername, await pollStatus(gateway, servername, {})]).toEqual([servername, 401])
      expect([servername, await pollStatus(gateway, servername, own)]).toEqual([servername, 200])
    }
  })

  it('whose files are broken still gets a new revocation list', async () => {
    const people = await People.start()
    onTestFinished(() => people.stop())
    const { gateway, files } = await start(people.access.clientCertificates)
    const own = people.certificate('alice')
    for (const servername of ['a.example', 'b.example'])
      expect([servername, await pollStatus(gateway, servername, own)]).toEqual([servername, 200])
    await writeFile(files('b').cert, 'broken')
    people.revoke('alice')
    await gateway.gateway.reload()
    for (const servername of ['a.example', 'b.example'])
      expect([servername, await pollStatus(gateway, servername, own)]).toEqual([servername, 401])
    expect((await shownTo(gateway, 'b.example')).subject.CN).toBe('b.example')
  })

  it('whose files cannot be read is refused at the start, by name', async () => {
    const certificates = [{ hosts: ['b.example'], cert: '/gone/b.crt', key: '/gone/b.key' }]
    await expect(startTestGateway({ https: { certificates } })).rejects.toThrow(
      /https\.certificates\[0\]\.cert: .*\/gone\/b\.crt/,
    )
  })
})
