import { once } from 'node:events'
import { chmod, mkdir, readFile, rename, stat, symlink, unlink, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { type ConnectionOptions, connect, createServer, type SecureVersion, type Server } from 'node:tls'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Certificates } from '../../src/server/certificates.js'
import { SessionTicketKeys } from '../../src/server/session-ticket-keys.js'
import { startTestGateway } from '../helpers/gateway.js'
import { recordingLog, temporaryDirectory, testMetrics, writeCertificate } from './rig.js'

const hour = 60 * 60 * 1000
const versions = ['TLSv1.2', 'TLSv1.3'] as const

interface Visit {
  readonly resumed: boolean
  /** What the next visit can resume. */
  readonly session: Buffer | undefined
}

/** Connects once, with the session of a former visit. */
async function visit(port: number, options: ConnectionOptions): Promise<Visit> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
  onTestFinished(() => void socket.destroy())
  let session: Buffer | undefined
  socket.on('session', given => {
    session = given
  })
  await once(socket, 'secureConnect')
  const resumed = socket.isSessionReused()
  // Sessions of TLS 1.3 come before the response.
  socket.end('GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  socket.resume()
  await once(socket, 'close')
  return { resumed, session }
}

/** Keys that go with the test, at a time of the test's choice. */
async function openKeys(data: string | undefined, { age = 0 } = {}) {
  const recording = recordingLog()
  const clock = { now: Date.now() + age }
  const keys = await SessionTicketKeys.open({ data, log: recording.log, now: () => clock.now, checkInterval: 1 << 30 })
  onTestFinished(() => keys.close())
  return { keys, clock, ...recording }
}

/** A TLS server with these keys; returns its port. */
async function serve(keys: SessionTicketKeys): Promise<number> {
  const { pem } = await writeCertificate(await temporaryDirectory())
  const server: Server = createServer({ ...pem, ...keys.secureContext }, socket => {
    socket.on('error', () => {})
    socket.resume().end('hello')
  })
  keys.serve(server)
  onTestFinished(() => void server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

const fileIn = (data: string): string => join(data, 'tls', 'ticket-key.json')

/** A data directory with a key, that belongs to nobody. */
async function storedKey(): Promise<{ data: string; file: string; text: string }> {
  const data = await temporaryDirectory()
  const { keys } = await openKeys(data)
  await keys.close()
  return { data, file: fileIn(data), text: await readFile(fileIn(data), 'utf8') }
}

describe('a TLS session', () => {
  /** A gateway on the same data; closes with the test, or before. */
  async function start(data: string, more: Parameters<typeof startTestGateway>[0] = {}) {
    const gateway = await startTestGateway({ data, push: 'off', http: { port: 'off' }, mqtt: { port: 'off' }, ...more })
    onTestFinished(() => gateway.close())
    return { gateway, port: Number(new URL(gateway.urls.https).port) }
  }

  it.each(versions)('is resumed after a restart, with other flags too (%s)', async maxVersion => {
    const data = await temporaryDirectory()
    const before = await start(data)
    const first = await visit(before.port, { maxVersion })
    expect(first.resumed).toBe(false)
    expect(await visit(before.port, { maxVersion, ...pick(first) })).toMatchObject({ resumed: true })
    await before.gateway.close()
    process.argv.push('--log-level=debug')
    onTestFinished(() => void process.argv.pop())
    const after = await start(data)
    expect(await visit(after.port, { maxVersion, ...pick(first) })).toMatchObject({ resumed: true })
  })

  it.each(versions)('may be resumed for a day (%s)', async maxVersion => {
    const { session } = await visit((await start('none')).port, { maxVersion })
    // OpenSSL's SSL_SESSION in DER: the lifetime that the server gave, 86,400 s as INTEGER.
    expect(session?.includes(Buffer.from('0203015180', 'hex'))).toBe(true)
  })

  it.each(versions)('is resumed at a further name after a restart (%s)', async maxVersion => {
    const directory = await temporaryDirectory()
    const { cert, key } = await writeCertificate(directory, { name: 'b.example', files: 'b' })
    const https = { port: 0, certificates: [{ hosts: ['b.example'], cert, key }] }
    const before = await start(directory, { https })
    const first = await visit(before.port, { maxVersion, servername: 'b.example' })
    await before.gateway.close()
    const after = await start(directory, { https })
    const again = await visit(after.port, { maxVersion, servername: 'b.example', ...pick(first) })
    expect([first.resumed, again.resumed]).toEqual([false, true])
  })

  it('is not resumed after a restart with keys in memory', async () => {
    const before = await start('none')
    const first = await visit(before.port, {})
    expect(await visit(before.port, pick(first))).toMatchObject({ resumed: true })
    await before.gateway.close()
    const after = await start('none')
    expect(await visit(after.port, pick(first))).toMatchObject({ resumed: false })
  })

  it('is resumed after the certificate was replaced', async () => {
    const directory = await temporaryDirectory()
    const files = await writeCertificate(directory)
    const { gateway, port } = await start(directory, { https: { port: 0, cert: files.cert, key: files.key } })
    const first = await visit(port, {})
    await writeCertificate(directory, { name: 'other.example' })
    await gateway.gateway.reload()
    expect(await visit(port, pick(first))).toMatchObject({ resumed: true })
    expect(await visit(port, {})).toMatchObject({ resumed: false })
  })
})

const pick = ({ session }: Visit): ConnectionOptions => (session ? { session } : {})

describe.each(versions)('the key of session tickets (%s)', (maxVersion: SecureVersion) => {
  it('is another one after 24 hours, and resumes no session of the former one', async () => {
    const { keys, clock } = await openKeys(await temporaryDirectory())
    const port = await serve(keys)
    const first = await visit(port, { maxVersion })
    clock.now += 24 * hour - 1000
    await keys.refresh()
    expect(await visit(port, { maxVersion, ...pick(first) })).toMatchObject({ resumed: true })
    clock.now += 1000
    await keys.refresh()
    const second = await visit(port, { maxVersion, ...pick(first) })
    expect(second).toMatchObject({ resumed: false })
    expect(await visit(port, { maxVersion, ...pick(second) })).toMatchObject({ resumed: true })
  })

  it('is the same for several processes, before and after it is replaced', async () => {
    const data = await temporaryDirectory()
    const one = await openKeys(data)
    const other = await openKeys(data)
    const ports = [await serve(one.keys), await serve(other.keys)] as const
    for (const age of [0, 24 * hour]) {
      one.clock.now += age
      other.clock.now += age
      await one.keys.refresh()
      await other.keys.refresh()
      const first = await visit(ports[0], { maxVersion })
      expect([first, await visit(ports[1], { maxVersion, ...pick(first) })]).toMatchObject([
        { resumed: false },
        { resumed: true },
      ])
    }
  })

  it('comes with every reload of the certificate', async () => {
    const directory = await temporaryDirectory()
    const files = await writeCertificate(directory)
    const { keys, clock, log } = await openKeys(directory)
    const certificates = await Certificates.start({
      ...{ files, minVersion: 'TLSv1.2', ticketKeys: keys, log, metrics: testMetrics() },
    })
    onTestFinished(() => certificates.close())
    const server = createServer(certificates.secureContext, socket => socket.resume().end('hello'))
    certificates.serve(server)
    onTestFinished(() => void server.close())
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    clock.now += 24 * hour
    await keys.refresh()
    const first = await visit(port, { maxVersion })
    await certificates.reload()
    expect(await visit(port, { maxVersion, ...pick(first) })).toMatchObject({ resumed: true })
  })
})

describe('the file of the key', () => {
  it('is for its owner alone, and so is its directory', async () => {
    const { data, file } = await storedKey()
    const modes = async () => [(await stat(file)).mode & 0o777, (await stat(dirname(file))).mode & 0o777]
    expect(await modes()).toEqual([0o600, 0o700])
    await chmod(dirname(file), 0o777)
    await openKeys(data)
    expect(await modes()).toEqual([0o600, 0o700])
  })

  it('stays as it is for 24 hours, and has another key then', async () => {
    const { data, file, text } = await storedKey()
    const { lines } = await openKeys(data, { age: 23 * hour })
    expect(await readFile(file, 'utf8')).toBe(text)
    await openKeys(data, { age: 25 * hour })
    expect(JSON.parse(await readFile(file, 'utf8')).key).not.toBe(JSON.parse(text).key)
    expect(lines.filter(({ level }) => level >= 40)).toEqual([])
  })

  it('is replaced when it comes from the future', async () => {
    const { data, file, text } = await storedKey()
    await openKeys(data, { age: -hour })
    expect(await readFile(file, 'utf8')).not.toBe(text)
  })

  it.each([
    ['is damaged', /it is damaged/, (file: string, text: string) => writeFile(file, text.slice(0, 60))],
    [
      'has a short key',
      /it is damaged/,
      (file: string, text: string) => writeFile(file, text.replace(/"key":"..../, '"key":"')),
    ],
    ['is very long', /it is damaged/, (file: string, text: string) => writeFile(file, text + ' '.repeat(2000))],
    ['is no mapping', /it is damaged/, (file: string) => writeFile(file, 'null')],
    ['was readable by others', /others may read or write it \(mode 0640\)/, (file: string) => chmod(file, 0o640)],
    [
      'is a symbolic link',
      /ELOOP/,
      async (file: string) => {
        await rename(file, `${file}.elsewhere`)
        await symlink(`${file}.elsewhere`, file)
      },
    ],
  ])('is replaced with a warning when it %s', async (_, reason, change) => {
    const { data, file, text } = await storedKey()
    await change(file, text)
    const { line } = await openKeys(data)
    const { level, msg } = await line(/was replaced/)
    expect(level).toBe(40)
    expect(msg).toContain(file)
    expect(msg).toMatch(reason)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(JSON.parse(await readFile(file, 'utf8')).key).not.toBe(JSON.parse(text).key)
    const { lines } = await openKeys(data)
    expect(lines.filter(({ level }) => level >= 40)).toEqual([])
  })

  it('invalidates all tickets when it is deleted', async () => {
    const { data, file } = await storedKey()
    const { keys } = await openKeys(data)
    const port = await serve(keys)
    const first = await visit(port, {})
    await unlink(file)
    await keys.refresh()
    const again = await visit(port, pick(first))
    expect(again).toMatchObject({ resumed: false })
    const restarted = await serve((await openKeys(data)).keys)
    expect(await visit(restarted, pick(again))).toMatchObject({ resumed: true })
  })

  it('is missing with a warning where it cannot be written, and keys are in memory', async () => {
    const data = join(await temporaryDirectory(), 'file')
    await writeFile(data, '')
    const { keys, lines } = await openKeys(data)
    const port = await serve(keys)
    expect(await visit(port, pick(await visit(port, {})))).toMatchObject({ resumed: true })
    await keys.refresh()
    expect(lines.filter(({ level }) => level >= 40).map(({ msg }) => msg)).toEqual([
      expect.stringMatching(/cannot be kept, so no TLS session is resumed after a restart: ENOTDIR/),
    ])
    await unlink(data)
    await mkdir(data)
    await keys.refresh()
    const restarted = await serve((await openKeys(data)).keys)
    expect(await visit(restarted, pick(await visit(port, {})))).toMatchObject({ resumed: true })
  })

  it('does not exist without a data directory, where keys are replaced, too', async () => {
    const { keys, clock } = await openKeys(undefined)
    const port = await serve(keys)
    const first = await visit(port, {})
    expect(await visit(port, pick(first))).toMatchObject({ resumed: true })
    clock.now += 24 * hour
    await keys.refresh()
    expect(await visit(port, pick(first))).toMatchObject({ resumed: false })
  })
})
