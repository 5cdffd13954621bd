import { fileURLToPath } from 'node:url'
import { run } from '../../helpers/processes.js'

const script = fileURLToPath(new URL('smtp_server.py', import.meta.url))

/** A mail that arrived. */
export interface ReceivedMail {
  readonly sender: string
  readonly recipients: readonly string[]
  /** Headers by their names in small letters; each once. */
  readonly headers: ReadonlyMap<string, string>
  readonly text: string
  readonly user: string | undefined
  readonly tls: boolean
}

/** Debian's aiosmtpd, which insists on STARTTLS and a login. */
export interface MailServer {
  readonly port: number
  /** What has arrived. */
  readonly mails: readonly ReceivedMail[]
  /** How many it has refused. */
  readonly refused: () => number
  stop(): Promise<void>
}

export interface MailServerOptions {
  readonly port?: number
  readonly cert: string
  readonly key: string
  /** `refuse` for one that takes nothing just now, `stranger` for one that does not know the sender, `plain` for one without STARTTLS, `tls` for TLS from the start. */
  readonly mode?: 'take' | 'refuse' | 'stranger' | 'plain' | 'tls'
}

export async function startMailServer(options: MailServerOptions): Promise<MailServer> {
  const { port = 0, cert, key, mode = 'take' } = options
  const running = run('/usr/bin/python3', [script, '127.0.0.1', String(port), cert, key, mode])
  let refused = 0
  const mails: ReceivedMail[] = []
  const started = JSON.parse(await running.line())
  const reading = (async () => {
    for (;;) {
      const said = JSON.parse(await running.line())
      if (said.refused) refused++
      else mails.push({ ...said, ...parseMail(said.data) })
    }
  })().catch(() => {})
  return {
    port: started.port,
    mails,
    refused: () => refused,
    stop: async () => {
      await running.stop()
      await reading
    },
  }
}

/** Takes a mail of one part apart. */
export function parseMail(data: string): Pick<ReceivedMail, 'headers' | 'text'> {
  const [head = '', ...body] = data.replaceAll('\r\n', '\n').split('\n\n')
  const lines = head.replace(/\n[ \t]+/g, ' ').split('\n')
  const headers = new Map<string, string>()
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    if (headers.has(name)) throw new Error(`the header ${name} is there twice`)
    headers.set(name, decodeWords(line.slice(colon + 1).trim()))
  }
  return { headers, text: decodeBody(body.join('\n\n'), headers.get('content-transfer-encoding') ?? '7bit') }
}

function decodeBody(body: string, encoding: string): string {
  if (encoding === 'base64') return Buffer.from(body, 'base64').toString()
  return encoding === 'quoted-printable' ? quotedPrintable(body.replaceAll('=\n', '')) : body
}

/** Encoded words (RFC 2047). */
function decodeWords(text: string): string {
  const joined = text.replace(/\?=\s+=\?/g, '?==?')
  return joined.replace(/=\?utf-8\?([qb])\?([^?]*)\?=/gi, (_, kind, word) =>
    kind.toLowerCase() === 'b' ? Buffer.from(word, 'base64').toString() : quotedPrintable(word.replaceAll('_', ' ')),
  )
}

function quotedPrintable(text: string): string {
  return text.replace(/(=[0-9A-F]{2})+/gi, bytes => Buffer.from(bytes.replaceAll('=', ''), 'hex').toString())
}
