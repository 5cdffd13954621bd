import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { describeWith } from '../../helpers/requires.js'
import { eventually } from '../../helpers/wait.js'
import { type MailServer, type MailServerOptions, startMailServer } from './mail-server.js'
import { makeCertificate, NotifyRig } from './rig.js'

let directory: string
let files: { readonly cert: string; readonly key: string }
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'mqway-smtp-'))
  files = makeCertificate(directory)
})
afterAll(() => rmSync(directory, { recursive: true }))

async function server(options: Partial<MailServerOptions> = {}): Promise<MailServer> {
  const started = await startMailServer({ ...files, ...options })
  onTestFinished(() => started.stop())
  return started
}

const ops = 'Ops <ops@example.org>'

/** A mail server that has an answer to what begins so, and is gone for what it has none. */
async function scripted(greeting: string, answers: Readonly<Record<string, string>>): Promise<AddressInfo> {
  const sockets = new Set<Socket>()
  const listening = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('data', data => {
      const [, answer] = Object.entries(answers).find(([word]) => data.toString('latin1').startsWith(word)) ?? []
      if (answer === undefined) socket.destroy()
      else if (answer !== '') socket.write(`${answer}\r\n`)
    })
    socket.write(`${greeting}\r\n`)
  })
  listening.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    listening.close()
  })
  return listening.address() as AddressInfo
}

async function started(port: number, to: string[] = [ops], smtp: object = {}): Promise<NotifyRig> {
  const login = { username: 'mqway', password: 'right', ca: files.cert }
  const rig = await NotifyRig.start([{ topics: ['#'], to }], {
    smtp: { url: `smtp://127.0.0.1:${port}`, ...login, ...smtp },
  })
  onTestFinished(() => rig.close())
  return rig
}

describeWith(['openssl', 'python3-aiosmtpd'], 'mails over SMTP', () => {
  it('go to a real server with STARTTLS and a login', async () => {
    const { port, mails } = await server()
    const rig = await started(port)
    await rig.publish('t', '.\nünï 😀')
    await rig.pass(10_000)
    await rig.told('Sent a mail')
    expect(mails).toEqual([
      expect.objectContaining({
        sender: 'mqway@example.org',
        recipients: ['ops@example.org'],
        user: 'mqway',
        tls: true,
      }),
    ])
    expect(mails[0]?.headers.get('to')).toBe(ops)
    expect(mails[0]?.text.trimEnd()).toBe('.\nünï 😀')
  })

  it('arrive once when the server is down, up and without room, and then well', async () => {
    const first = await server()
    const { port } = first
    await first.stop()
    const rig = await started(port)
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('next attempt in 30 s')
    const full = await server({ port, mode: 'refuse' })
    await rig.pass(30_000)
    await rig.told('next attempt in 60 s')
    expect(full.refused()).toBe(1)
    await full.stop()
    const { mails } = await server({ port })
    await rig.pass(60_000)
    await rig.told('Sent a mail')
    await rig.pass(86_400_000)
    expect(mails).toHaveLength(1)
  })

  it('go to the others when one of the recipients is refused for good, or just now', async () => {
    const { port, mails } = await server()
    const rig = await started(port, ['nobody@example.org', 'later@example.org', ops])
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('Sent a mail')
    expect(rig.logged.find(({ msg }) => String(msg).includes('given up'))).toMatchObject({
      recipient: 'nobody@example.org',
    })
    await rig.pass(30_000)
    await rig.told('next attempt in 60 s')
    expect(mails.map(({ recipients }) => recipients)).toEqual([['ops@example.org']])
  })

  it.each([
    ['a wrong password', { password: 'wrong' }, 'take'],
    ['no login', { username: undefined, password: undefined }, 'take'],
    ['a sender that the server does not take', {}, 'stranger'],
    ['a certificate of nobody known', { ca: undefined }, 'take'],
    ['no STARTTLS', { username: undefined, password: undefined }, 'plain'],
  ] as const)('wait while there is %s', async (_, smtp, mode) => {
    const { port, mails } = await server({ mode })
    const rig = await started(port, [ops], smtp)
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('next attempt in 30 s')
    expect(mails).toEqual([])
    expect(JSON.stringify(rig.logged)).not.toContain('wrong')
  })

  it.each(['smtp', 'smtps'])('wait while %s:// leads to a server with the certificate of another', async scheme => {
    const other = makeCertificate(mkdtempSync(join(directory, 'other-')), 'DNS:localhost,DNS:other.example')
    const { port, mails } = await server({ ...other, mode: scheme === 'smtp' ? 'take' : 'tls' })
    const rig = await started(port, [ops], { url: `${scheme}://127.0.0.1:${port}`, ca: other.cert })
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('next attempt in 30 s')
    expect(JSON.stringify(rig.logged)).toContain('127.0.0.1 is not in the cert')
    expect(mails).toEqual([])
  })

  it('go without TLS where the configuration says so', async () => {
    const { port, mails } = await server({ mode: 'plain' })
    const rig = await started(port, [ops], { username: undefined, password: undefined, startTLS: 'off' })
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await eventually(() => mails.length === 1)
    expect(mails[0]?.tls).toBe(false)
  })

  it('go to a server that speaks TLS from the start', async () => {
    const { port, mails } = await server({ mode: 'tls' })
    const url = `smtps://127.0.0.1:${port}`
    const rig = await started(port, [ops], { url, username: undefined, password: undefined })
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await eventually(() => mails.length === 1)
  })

  it.each([
    ['says nothing else than good-bye', '421 Too busy', {}],
    ['is no mail server', 'HTTP/1.1 400 Bad Request', {}],
    ['is gone at STARTTLS', '220 hello', { EHLO: '250 STARTTLS' }],
    ['goes on without TLS', '220 hello', { EHLO: '250 STARTTLS', STARTTLS: '220 go on', '\u0016': '250 OK' }],
    ['cannot do TLS just now', '220 hello', { EHLO: '250 STARTTLS', STARTTLS: '454 not now' }],
  ])('wait while the server %s', async (_, greeting, answers) => {
    const { port } = await scripted(greeting, answers)
    const rig = await started(port)
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('next attempt in 30 s')
  })

  it.each([
    ['is gone with the first word of the mail', { DATA: '354 go on' }],
    ['is gone when it has the mail', { DATA: '354 go on', From: '' }],
    ['has no room for the mail', { DATA: '452 no room' }],
  ])('wait while the server, without TLS, %s', async (_, answers) => {
    const taken = { EHLO: '250 hello', MAIL: '250 OK', RCPT: '250 OK' }
    const { port } = await scripted('220 hello', { ...taken, ...answers })
    const rig = await started(port, [ops], { username: undefined, password: undefined, startTLS: 'off' })
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('next attempt in 30 s')
    expect(rig.figures).toMatchObject({ sent: 0, failed: 0, retried: 1, waiting: 1 })
  })

  it('wait while a server does not come to an end for minutes', async () => {
    let isAsked = false
    const talkative = createServer(socket => {
      socket.on('error', () => {})
      socket.on('data', () => {
        isAsked = true
        socket.write('250-mail.example.org\r\n')
      })
      socket.write('220 mail.example.org\r\n')
    })
    talkative.listen(0, '127.0.0.1')
    await once(talkative, 'listening')
    onTestFinished(() => {
      talkative.close()
    })
    const rig = await started((talkative.address() as AddressInfo).port)
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await eventually(() => isAsked)
    await rig.pass(300_000)
    await rig.told('next attempt in 30 s')
    expect(JSON.stringify(rig.logged)).toContain('not sent within 300000 ms')
  })

  it('do not keep anybody who stops waiting for a server that says nothing', async () => {
    const silent = createServer(socket => socket.on('error', () => {})).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    onTestFinished(() => {
      silent.close()
    })
    const rig = await started((silent.address() as AddressInfo).port)
    const connected = once(silent, 'connection')
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    const [socket] = await connected
    const ended = once(socket, 'close')
    socket.resume()
    await rig.stop()
    await ended
    expect(rig.logged.filter(({ level }) => level === 50)).toEqual([])
  })
})
