import { once } from 'node:events'
import { chmod, mkdir, readFile, rename, rm, stat, symlink, unlink, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { describe, expect, it, onTestFinished } from 'vitest'
import { UnreadResponses } from '../../src/http/unread-responses.js'
import { loadCertificate } from '../../src/server/certificate.js'
import { Certificates } from '../../src/server/certificates.js'
import { developmentCertificate } from '../../src/server/development-certificate.js'
import { PipelinedRequests } from '../../src/server/pipelined-requests.js'
import { StreamQueue } from '../../src/server/stream-queue.js'
import { startHttps } from '../../src/server/web-servers.js'
import {
  closing,
  portOf,
  recordingLog,
  requestLimits,
  temporaryDirectory,
  testMetrics,
  writeCertificate,
} from './rig.js'

const day = 86_400_000

/** A TLS server with the certificate in `directory`, looked at all the time. */
async function start(
  directory: string,
  files = { cert: join(directory, 'server.crt'), key: join(directory, 'server.key') },
) {
  const recording = recordingLog()
  const metrics = testMetrics()
  const parts = { log: recording.log, metrics }
  const unreadResponses = new UnreadResponses(parts)
  const certificates = await Certificates.start({ files, minVersion: 'TLSv1.2', pollInterval: 10, ...parts })
  onTestFinished(() => certificates.close())
  const listener = closing(
    await startHttps({
      ...parts,
      unreadResponses,
      pipelined: new PipelinedRequests(parts),
      streams: new StreamQueue(),
      app: { routing: (_request, response) => void response.end() },
      onUpgrade: (_request, socket) => void socket.on('data', chunk => socket.write(chunk)).resume(),
      host: '127.0.0.1',
      port: 0,
      maxConnections: 10,
      limits: requestLimits,
      certificates,
    }),
  )
  return { ...recording, metrics, certificates, port: portOf(listener) }
}

async function open(port: number): Promise<TLSSocket> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] })
  onTestFinished(() => void socket.destroy())
  await once(socket, 'secureConnect')
  return socket
}

const servedName = async (port: number): Promise<unknown> => (await open(port)).getPeerCertificate().subject.CN

async function expiryMetric(metrics: ReturnType<typeof testMetrics>): Promise<number | undefined> {
  return (await metrics.registry.getSingleMetric('mqway_certificate_expiry_seconds')?.get())?.values[0]?.value
}

describe('a certificate', () => {
  it('says whom it is for, and until when', async () => {
    const files = await writeCertificate(await temporaryDirectory(), { name: 'a.example' })
    const certificate = await loadCertificate(files)
    expect(certificate).toMatchObject({ subject: 'CN=a.example', names: ['a.example'] })
    expect(Math.round((certificate.validTo - Date.now()) / day)).toBe(100)
  })

  it('may be in one file with its key and its chain', async () => {
    const directory = await temporaryDirectory()
    const own = await writeCertificate(directory, { name: 'a.example' })
    const other = await writeCertificate(directory, { name: 'ca.example', files: 'ca' })
    const both = join(directory, 'both.pem')
    await writeFile(both, own.pem.key + own.pem.cert + other.pem.cert)
    expect(await loadCertificate({ cert: both, key: both })).toMatchObject({ subject: 'CN=a.example' })
  })

  it.each<[string, (directory: string) => Promise<void>, RegExp]>([
    ['there is no file', d => unlink(join(d, 'server.crt')), /certificate file .*server\.crt cannot be read: ENOENT/],
    ['there is no key', d => unlink(join(d, 'server.key')), /key file .*server\.key cannot be read: ENOENT/],
    [
      'the file is a directory',
      async d => {
        await unlink(join(d, 'server.crt'))
        await mkdir(join(d, 'server.crt'))
      },
      /server\.crt cannot be read: EISDIR/,
    ],
    ['it is empty', d => writeFile(join(d, 'server.crt'), ''), /server\.crt holds no certificate in PEM form/],
    [
      'it is damaged',
      d => writeFile(join(d, 'server.crt'), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'),
      /certificate 1 in .*server\.crt is damaged/,
    ],
    [
      'the key is of another',
      async d => {
        const { pem } = await writeCertificate(d, { files: 'b' })
        await writeFile(join(d, 'server.key'), pem.key)
      },
      /the key in .*server\.key is not that of the first certificate in .*server\.crt \(CN=localhost\)/,
    ],
    [
      'the key is none',
      d => writeFile(join(d, 'server.key'), 'secret'),
      /server\.key holds no private key in PEM form/,
    ],
    [
      'the key is encrypted',
      d =>
        writeFile(
          join(d, 'server.key'),
          '-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n',
        ),
      /server\.key is encrypted; decrypt it with: openssl pkey/,
    ],
  ])('cannot be served when %s, and the error says so', async (_case, damage, message) => {
    const directory = await temporaryDirectory()
    const files = await writeCertificate(directory)
    await damage(directory)
    await expect(loadCertificate(files)).rejects.toThrow(message)
    const options = { files, minVersion: 'TLSv1.2', log: recordingLog().log, metrics: testMetrics() } as const
    await expect(Certificates.start(options)).rejects.toMatchObject({ name: 'StartError', exitCode: 69 })
  })
})

describe('while it is served, a certificate', () => {
  it('is replaced by a new one without the loss of a connection', async () => {
    const directory = await temporaryDirectory()
    await writeCertificate(directory, { name: 'old.example' })
    const { port, line, metrics } = await start(directory)
    const socket = await open(port)
    socket.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
    expect(await servedName(port)).toBe('old.example')

    await writeCertificate(directory, { name: 'new.example', validFor: 50 * day })
    expect(await line(/^The certificate was replaced/)).toMatchObject({
      level: 30,
      subject: 'CN=new.example',
      names: ['new.example'],
      expires: expect.stringMatching(/^20/),
    })
    expect(await servedName(port)).toBe('new.example')
    expect(await expiryMetric(metrics)).toBeCloseTo((Date.now() + 50 * day) / 1000, -2)
    socket.write('still here')
    expect(String((await once(socket, 'data'))[0])).toBe('still here')
  })

  it('stays when the new one is bad, and the log says why; a good one later is taken', async () => {
    const directory = await temporaryDirectory()
    await writeCertificate(directory, { name: 'old.example' })
    const { port, line } = await start(directory)
    const { pem } = await writeCertificate(directory, { name: 'other.example', files: 'other' })
    await writeFile(join(directory, 'server.key'), pem.key)
    expect(await line(/^The new certificate was refused, the old one stays: the key in/)).toMatchObject({ level: 50 })
    expect(await servedName(port)).toBe('old.example')
    await writeFile(join(directory, 'server.crt'), pem.cert)
    await line(/^The certificate was replaced/)
    expect(await servedName(port)).toBe('other.example')
  })

  it('is followed through renames', async () => {
    const directory = await temporaryDirectory()
    await writeCertificate(directory, { name: 'old.example' })
    const { port, line } = await start(directory)
    await writeCertificate(directory, { name: 'new.example', files: 'draft' })
    await rename(join(directory, 'draft.crt'), join(directory, 'server.crt'))
    await rename(join(directory, 'draft.key'), join(directory, 'server.key'))
    await line(/^The certificate was replaced/)
    expect(await servedName(port)).toBe('new.example')
  })

  it('is followed through the swap of a symbolic link, as Kubernetes and certbot do it', async () => {
    const directory = await temporaryDirectory()
    for (const name of ['one', 'two']) {
      await mkdir(join(directory, name))
      await writeCertificate(join(directory, name), { name: `${name}.example` })
    }
    await symlink('one', join(directory, '..data'))
    await symlink('..data/server.crt', join(directory, 'tls.crt'))
    await symlink('..data/server.key', join(directory, 'tls.key'))
    const { port, line } = await start(directory, { cert: join(directory, 'tls.crt'), key: join(directory, 'tls.key') })
    expect(await servedName(port)).toBe('one.example')
    await symlink('two', join(directory, '..next'))
    await rename(join(directory, '..next'), join(directory, '..data'))
    await line(/^The certificate was replaced/)
    expect(await servedName(port)).toBe('two.example')
  })

  it('is read again when asked to, changed or not', async () => {
    const directory = await temporaryDirectory()
    await writeCertificate(directory)
    const { certificates, line } = await start(directory)
    await certificates.reload()
    await line(/^The certificate was replaced/)
    await rm(join(directory, 'server.crt'))
    await certificates.reload()
    await line(/^The new certificate was refused/)
    expect(certificates.current.subject).toBe('CN=localhost')
  })

  it('is not read any more after the close', async () => {
    const directory = await temporaryDirectory()
    await writeCertificate(directory)
    const { certificates, lines } = await start(directory)
    await Promise.all([certificates.close(), certificates.close()])
    await certificates.reload()
    expect(lines.map(({ msg }) => msg)).toEqual(['Serving the certificate'])
  })

  it.each([
    [13.5 * day, /^The certificate expires in 14 days/],
    [-day, /^The certificate has expired/],
  ])('is warned of when it has %d ms left', async (validFor, message) => {
    const directory = await temporaryDirectory()
    await writeCertificate(directory, { validFor })
    const { line } = await start(directory)
    expect(await line(message)).toMatchObject({ level: 40, subject: 'CN=localhost' })
  })
})

describe('the development certificate', () => {
  it('is for this machine, trusted by who is told to, and its key is for its owner alone', async () => {
    const directory = join(await temporaryDirectory(), 'certs')
    const { log } = recordingLog()
    const files = await developmentCertificate({ directory, log })
    expect((await stat(files.key)).mode & 0o777).toBe(0o600)
    expect(await readFile(join(directory, 'README.md'), 'utf8')).toMatch(/To trust it/)
    const certificate = await loadCertificate(files)
    expect(certificate.names).toEqual([...new Set(['localhost', hostname(), '127.0.0.1', '::1'])])
    const { port } = await start(directory, files)
    for (const host of ['localhost', '127.0.0.1']) {
      const socket = connectTls({ port, host, ca: certificate.cert })
      await once(socket, 'secureConnect')
      socket.destroy()
    }
  })

  it('is kept', async () => {
    const directory = await temporaryDirectory()
    const { log } = recordingLog()
    const first = await loadCertificate(await developmentCertificate({ directory, log }))
    await writeFile(join(directory, 'README.md'), 'mine')
    const second = await loadCertificate(await developmentCertificate({ directory, log }))
    expect(second.cert).toBe(first.cert)
    expect(await readFile(join(directory, 'README.md'), 'utf8')).toBe('mine')
  })

  it('is made anew when its key is damaged, with the mode that a key should have', async () => {
    const directory = await temporaryDirectory()
    const { log } = recordingLog()
    const files = await developmentCertificate({ directory, log })
    const first = await readFile(files.cert, 'utf8')
    await writeFile(files.key, 'damaged')
    await chmod(files.key, 0o644)
    await developmentCertificate({ directory, log })
    expect(await readFile(files.cert, 'utf8')).not.toBe(first)
    expect((await stat(files.key)).mode & 0o777).toBe(0o600)
  })

  it('never takes the place of a certificate that is not its own', async () => {
    const directory = await temporaryDirectory()
    const { log } = recordingLog()
    const theirs = await writeCertificate(directory, { files: 'localhost', validFor: -day })
    await developmentCertificate({ directory, log })
    expect(await readFile(theirs.cert, 'utf8')).toBe(theirs.pem.cert)
    await writeFile(theirs.cert, 'a draft of mine')
    await expect(developmentCertificate({ directory, log })).rejects.toThrow(/holds no certificate.*--cert and --key/)
  })

  it('that cannot be written is an error that says what to do', async () => {
    const file = join(await temporaryDirectory(), 'file')
    await writeFile(file, '')
    const work = developmentCertificate({ directory: join(file, 'certs'), log: recordingLog().log })
    await expect(work).rejects.toMatchObject({ name: 'StartError', message: expect.stringMatching(/--https-port off/) })
  })
})
