import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { AcmeCertificate } from '../../../src/server/acme/acme-certificate.js'
import { AcmeFiles } from '../../../src/server/acme/acme-files.js'
import { recordingLog, temporaryDirectory, testMetrics, writeCertificate } from '../rig.js'

const day = 86_400_000

/** A key and a certificate in one text. */
async function made(name: string, validFor = 90 * day) {
  const { pem } = await writeCertificate(await temporaryDirectory(), { name, validFor })
  return { ...pem, both: pem.key + pem.cert }
}

it.each([
  ['is for other names', async () => (await made('b.example')).both, /is not for a\.example/],
  ['has expired', async () => (await made('a.example', -day)).both, /has expired already/],
  [
    'does not match its key',
    async () => (await made('a.example')).key + (await made('a.example')).cert,
    /is not that of the first certificate/,
  ],
  ['is none', async () => 'an error page', /holds no certificate/],
])('a new certificate that %s does not replace the old one', async (_, make, reason) => {
  const data = await temporaryDirectory()
  const files = await AcmeFiles.open(data)
  const old = (await made('a.example')).both
  await files.writeCertificate(old, ['a.example'])
  await expect(files.writeCertificate(await make(), ['a.example'])).rejects.toThrow(reason)
  expect(await readFile(files.certificate.cert, 'utf8')).toBe(old)
  expect(await readdir(join(data, 'acme'))).toEqual(['certificate.pem'])
})

async function open(data: string) {
  const { log, line } = recordingLog()
  const certificate = await AcmeCertificate.open({
    ...{ data, log, metrics: testMetrics(), domains: ['a.example'], challenge: 'http-01' },
    ...{ directory: 'https://ca.example/', email: undefined, renewBefore: undefined, ca: undefined },
  })
  return { certificate, line }
}

it('a damaged certificate is set aside, and a stand-in is served', async () => {
  const data = await temporaryDirectory()
  await mkdir(join(data, 'acme'))
  await writeFile(join(data, 'acme', 'certificate.pem'), 'damaged')
  const { certificate, line } = await open(data)
  expect((await line(/^The stored certificate is damaged/)).level).toBe(50)
  expect(await readFile(join(data, 'acme', 'certificate.damaged.pem'), 'utf8')).toBe('damaged')
  expect(await readFile(certificate.files.cert, 'utf8')).toContain('BEGIN CERTIFICATE')
})

it('a certificate that cannot be read is an error of the start, and stays as it is', async () => {
  const data = await temporaryDirectory()
  await mkdir(join(data, 'acme', 'certificate.pem'), { recursive: true })
  await expect(open(data)).rejects.toThrow(/no certificate by ACME in .*EISDIR/)
  expect(await readdir(join(data, 'acme'))).toEqual(['certificate.pem'])
})

it('a damaged key of the account is an error that says what to do, and is not replaced', async () => {
  const files = await AcmeFiles.open(await temporaryDirectory())
  const { key } = await made('a.example')
  expect(await files.accountKey(async () => key)).toBe(key)
  expect(await files.accountKey(async () => 'another one')).toBe(key)
  const file = join(files.certificate.cert, '..', 'account.pem')
  await writeFile(file, 'damaged')
  await expect(files.accountKey(async () => key)).rejects.toThrow(/account\.pem holds no private key; remove it/)
  expect(await readFile(file, 'utf8')).toBe('damaged')
})

it('a damaged history of orders is an empty one', async () => {
  const files = await AcmeFiles.open(await temporaryDirectory())
  const file = join(files.certificate.cert, '..', 'orders.json')
  for (const text of ['', '[]', '{"directory":1}', '{"directory":"https://ca.example/","orders":{}}', '\0']) {
    await writeFile(file, text)
    expect(await files.readHistory(), text).toEqual({ directory: '', orders: [] })
  }
  await writeFile(file, '{"directory":"https://ca.example/","orders":["x","2026-12-01T00:00:00Z"]}')
  expect(await files.readHistory()).toEqual({ directory: 'https://ca.example/', orders: [Date.UTC(2026, 11, 1)] })
})
