import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { connect, Socket } from 'node:net'
import { resolve } from 'node:path'
import type { SendMailOptions } from 'nodemailer'
import type { Clock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import { StartError } from '../../base/start-error.js'
import { timeLimit } from '../../base/time-limit.js'
import { type MailConfig, parseSmtpUrl, type SmtpAddress } from '../../config/notify.js'
import { type Channel, SendError } from './channel.js'
import type { QueuedMail } from './notification-queue.js'

/** SMTP timeouts in milliseconds: for the connection, for silence, and for a whole mail. */
const [connectTimeout, silenceTimeout, mailTimeout] = [15_000, 60_000, 300_000]

export interface MailerOptions {
  readonly config: MailConfig
  /** Relative paths of the configuration begin here. */
  readonly cwd: string
  readonly clock: Clock
  readonly log: Logger
  /** Timeout of a sendmail program, in milliseconds. Default: 60,000. */
  readonly sendmailTime?: number | undefined
}

/**
 * Opens the channel of mails: an SMTP server or a sendmail program.
 *
 * @throws {StartError} if a file cannot be used
 */
export async function openMailer(options: MailerOptions): Promise<Channel<QueuedMail>> {
  const { log, config } = options
  const fieldsOf = ({ rule, recipient, messageId }: QueuedMail): object => ({ rule, recipient, messageId })
  return {
    noun: 'a mail',
    giveUpAfter: config.giveUpAfter,
    delays: { first: 30_000, max: 3_600_000 },
    sentLevel: 'info',
    ...(await openTransport(options)),
    fieldsOf,
    givenUp: async (mail, error) => {
      log.error({ ...fieldsOf(mail), err: error, subject: mail.subject }, 'Failed to send a mail: given up')
    },
  }
}

async function openTransport(options: MailerOptions): Promise<Pick<Channel<QueuedMail>, 'send' | 'close'>> {
  const { config, cwd, clock, sendmailTime = 60_000 } = options
  // Imported on demand.
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
    // RFC 3834 §5: no automatic responses.
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
        if (!Buffer.isBuffer(bytes)) throw new SendError('Failed to compose the mail', { permanent: true })
        const args = ['-i', '-f', addressOf(config.from), '--', addressOf(mail.recipient)]
        const limit = timeLimit(sendmailTime, running.signal)
        await runSendmail(resolve(cwd, sendmail), args, bytes, limit.signal).finally(() => limit.end())
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
    greetingTimeout: connectTimeout,
    socketTimeout: silenceTimeout,
  })
  return {
    send: async mail => {
      // One mail at a time: a server that sends a byte per minute would block all others.
      const stopTimer = clock.after(mailTimeout, () => sockets.close(`not sent within ${mailTimeout} ms`))
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

/** The connections to a mail server: nodemailer does not close active ones. */
class Sockets {
  readonly #open = new Set<Socket>()

  open(
    { host, port }: SmtpAddress,
    opened: (error: Error | null, options: { readonly connection: Socket } | false) => void,
  ): void {
    const socket = connect({ host, port })
    this.#open.add(socket)
    const timer = setTimeout(
      () => socket.destroy(new Error(`no connection within ${connectTimeout} ms`)),
      connectTimeout,
    )
    // Permanent: once TLS is on top, nodemailer no longer listens for errors of the socket below.
    socket.on('error', () => {})
    const onError = (error: Error): void => opened(error, false)
    socket.once('error', onError)
    socket.once('close', () => {
      clearTimeout(timer)
      this.#open.delete(socket)
    })
    socket.once('connect', () => {
      clearTimeout(timer)
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

/** Reply codes of authentication (RFC 4954 §6). */
const loginCodes = [530, 534, 535, 538]

/**
 * A permanent refusal (5yz, RFC 5321 §4.2.1) of a recipient or of the mail is not retried. One of the login or the sender is,
 * because the configuration may be corrected.
 */
function smtpError(error: unknown): SendError {
  if (!(error instanceof Error)) return new SendError(String(error), { isShared: true })
  const code = 'responseCode' in error ? Number(error.responseCode) : 0
  const isOfMail =
    'command' in error && (error.command === 'RCPT TO' || error.command === 'DATA') && !loginCodes.includes(code)
  const permanent = isOfMail && code >= 500 && code < 600
  return new SendError(error.message, { permanent, isShared: !isOfMail, cause: error })
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
      const message = signal.aborted ? 'timed out' : error.message
      fail(new SendError(`${path}: ${message}`, { isShared: true, cause: error }))
    })
    // A background process of it may keep standard error open.
    child.on('exit', (code, killedBy) => {
      if (child.stderr instanceof Socket) child.stderr.unref()
      if (code === 0) return done()
      const refuse = (): void => {
        const text = `${path} ended with ${code ?? killedBy}${errors === '' ? '' : `: ${errors.slice(0, 1000).trim()}`}`
        const permanent = permanentExits.includes(code ?? 0)
        fail(new SendError(text, { permanent, isShared: !permanent }))
      }
      child.on('close', refuse)
      signal.addEventListener('abort', refuse, { once: true })
    })
    // If it does not read its input, its exit code has the reason.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}
