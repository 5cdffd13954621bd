import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { connect, Socket } from 'node:net'
import { resolve } from 'node:path'
import type { SendMailOptions } from 'nodemailer'
import type { Clock } from '../../base/clock.js'
import { StartError } from '../../base/start-error.js'
import { type MailConfig, parseSmtpUrl, type SmtpAddress } from '../../config/notify.js'
import type { QueuedMail } from './mail-queue.js'

/** A mail was not taken. */
export class MailError extends Error {
  override readonly name = 'MailError'
  /** Whether it never will be. */
  readonly permanent: boolean
  /** Whether another mail would not have been taken either, as far as anybody knows. */
  readonly isShared: boolean

  constructor(
    text: string,
    about: { readonly permanent?: boolean; readonly isShared?: boolean; readonly cause?: unknown },
  ) {
    super(text, about.cause === undefined ? undefined : { cause: about.cause })
    this.permanent = about.permanent ?? false
    this.isShared = about.isShared ?? false
  }
}

/** What takes mails. */
export interface Mailer {
  /** @throws {MailError} rejects where it was not taken */
  send(mail: QueuedMail): Promise<void>
  /** Ends what is under way. Idempotent. */
  close(): void
}

/** How long each step of SMTP may take, and all of them together; in milliseconds. */
const [connectTime, silence, smtpTime] = [15_000, 60_000, 300_000]

/** How a mailer measures time. */
export interface MailerTimes {
  readonly clock: Clock
  /** How long a sendmail may take, in milliseconds; a minute when left out. */
  readonly sendmailTime?: number | undefined
}

/**
 * Opens what the configuration names.
 *
 * @throws {StartError} where a file cannot be used
 */
export async function openMailer(config: MailConfig, cwd: string, times: MailerTimes): Promise<Mailer> {
  const { clock, sendmailTime = 60_000 } = times
  // Loaded where mails are sent.
  const { default: nodemailer } = await import('nodemailer')
  const common = { disableFileAccess: true, disableUrlAccess: true }
  const message = (mail: QueuedMail): SendMailOptions => ({
    from: config.from,
    to: [...mail.to],
    envelope: { from: addressOf(config.from), to: [addressOf(mail.recipient)] },
    subject: mail.subject,
    text: mail.text,
    messageId: mail.messageId,
    date: new Date(mail.created),
    // RFC 3834 §5: nobody on holiday answers it.
    headers: { 'Auto-Submitted': 'auto-generated' },
    xMailer: false,
  })
  const { smtp, sendmail = '' } = config
  if (smtp === undefined) {
    const composer = nodemailer.createTransport({ ...common, streamTransport: true, buffer: true, newline: 'unix' })
    const running = new AbortController()
    return {
      send: async mail => {
        const { message: bytes } = await composer.sendMail(message(mail))
        if (!Buffer.isBuffer(bytes)) throw new MailError('it was not made', { permanent: true })
        const args = ['-i', '-f', addressOf(config.from), '--', addressOf(mail.recipient)]
        const signal = AbortSignal.any([running.signal, AbortSignal.timeout(sendmailTime)])
        await runSendmail(resolve(cwd, sendmail), args, bytes, signal)
      },
      close: () => running.abort(),
    }
  }
  const { username, password, startTLS } = smtp
  const address = parseSmtpUrl(smtp.url)
  if (!address) throw new StartError('notify.mail.smtp.url: must be smtp://host:port or smtps://host:port')
  const sockets = new Sockets()
  const transport = nodemailer.createTransport({
    ...common,
    ...address,
    requireTLS: startTLS === 'required',
    ignoreTLS: startTLS === 'off',
    opportunisticTLS: startTLS === 'opportunistic',
    ...(username === undefined ? {} : { auth: { user: username, pass: password ?? '' } }),
    tls: smtp.ca === undefined ? {} : { ca: readCa(resolve(cwd, smtp.ca)) },
    getSocket: (_options, opened) => {
      sockets.open(address, opened)
    },
    greetingTimeout: connectTime,
    socketTimeout: silence,
  })
  return {
    send: async mail => {
      // One mail at a time: a server that says a word a minute would keep all others.
      const stopTimer = clock.after(smtpTime, () => sockets.close(`not done within ${smtpTime} ms`))
      try {
        await transport.sendMail(message(mail))
      } catch (error) {
        throw smtpError(error)
      } finally {
        stopTimer()
      }
    },
    close: () => sockets.close(),
  }
}

/** The connections to a mail server: nodemailer does not end those that are under way. */
class Sockets {
  readonly #open = new Set<Socket>()

  open(
    { host, port }: SmtpAddress,
    opened: (error: Error | null, options: { readonly connection: Socket } | false) => void,
  ): void {
    const socket = connect({ host, port })
    this.#open.add(socket)
    const tooLate = setTimeout(() => socket.destroy(new Error(`no connection within ${connectTime} ms`)), connectTime)
    // For good: below TLS, nodemailer does not listen to it any more.
    socket.on('error', () => {})
    const onError = (error: Error): void => opened(error, false)
    socket.once('error', onError)
    socket.once('close', () => {
      clearTimeout(tooLate)
      this.#open.delete(socket)
    })
    socket.once('connect', () => {
      clearTimeout(tooLate)
      socket.off('error', onError)
      opened(null, { connection: socket })
    })
  }

  close(why?: string): void {
    for (const socket of this.#open) socket.destroy(why === undefined ? undefined : new Error(why))
  }
}

function readCa(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new StartError(`notify.mail.smtp.ca: cannot read ${path}`, { cause: error })
  }
}

/** RFC 4954 §6: who sends has to say who they are. */
const loginCodes = [530, 534, 535, 538]

/**
 * What the server refuses for good (5yz, RFC 5321 §4.2.1), of a recipient or of the mail, is not tried again. A login and
 * a sender are, as those of the configuration may be put right.
 */
function smtpError(error: unknown): MailError {
  if (!(error instanceof Error)) return new MailError(String(error), { isShared: true })
  const code = 'responseCode' in error ? Number(error.responseCode) : 0
  const isOfMail =
    'command' in error && (error.command === 'RCPT TO' || error.command === 'DATA') && !loginCodes.includes(code)
  const permanent = isOfMail && code >= 500 && code < 600
  return new MailError(error.message, { permanent, isShared: !isOfMail, cause: error })
}

/** The address alone, of `Name <address>`. */
function addressOf(text: string): string {
  return /<([^<>]*)>$/.exec(text)?.[1] ?? text
}

/** EX_USAGE, EX_DATAERR and EX_NOUSER of sysexits.h: the same mail is refused again. */
const permanentExits = [64, 65, 67]

function runSendmail(path: string, args: readonly string[], input: Buffer, signal: AbortSignal): Promise<void> {
  return new Promise((done, fail) => {
    const child = spawn(path, args, {
      stdio: ['pipe', 'ignore', 'pipe'],
      signal,
      killSignal: 'SIGKILL',
    })
    let errors = ''
    child.stderr.on('data', (chunk: Buffer) => {
      if (errors.length < 1000) errors += chunk
    })
    child.on('error', error => {
      const message = signal.aborted ? 'it came to no end' : error.message
      fail(new MailError(`${path}: ${message}`, { isShared: true, cause: error }))
    })
    // What it leaves behind, to deliver the mail, may keep standard error.
    child.on('exit', (code, killedBy) => {
      if (child.stderr instanceof Socket) child.stderr.unref()
      if (code === 0) return done()
      const refuse = (): void => {
        const text = `${path} ended with ${code ?? killedBy}${errors === '' ? '' : `: ${errors.slice(0, 1000).trim()}`}`
        const permanent = permanentExits.includes(code ?? 0)
        fail(new MailError(text, { permanent, isShared: !permanent }))
      }
      child.on('close', refuse)
      signal.addEventListener('abort', refuse, { once: true })
    })
    // One that reads nothing says why with its exit code.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}
