import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { createLog } from '../../../src/base/log.js'
import type { NotificationFigures } from '../../../src/base/metrics.js'
import { notify as notifySection } from '../../../src/config/notify.js'
import { type Hub, openHub } from '../../../src/hub/hub.js'
import { type Notify, openNotify } from '../../../src/integrations/notify/notify.js'
import type { Event } from '../../../src/journal/event.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import { openLevelStore } from '../../../src/storage/level-store.js'
import { MemoryStore } from '../../../src/storage/memory-store.js'
import { eventJson } from '../../../src/transports/event-json.js'
import { wide } from '../../contracts/journal.js'
import { eventually } from '../../helpers/wait.js'
import { TestClock } from '../../receipts/rig.js'
import { parseMail } from './mail-server.js'

type Input = typeof notifySection._zod.input

/** A mail that the sendmail of a test was given. */
export interface SentMail {
  readonly args: string
  readonly headers: ReadonlyMap<string, string>
  readonly text: string
}

/** Mails by rules, on a journal in memory, with a clock of the test, and a real program in the place of sendmail. */
export class NotifyRig {
  readonly directory = mkdtempSync(join(tmpdir(), 'mqway-notify-'))
  readonly clock = new TestClock()
  readonly logged: Record<string, unknown>[] = []
  readonly journal: MemoryJournal
  connected = true
  /** Whether what it knows outlives it. What is written to disk takes its time, whatever the clock says. */
  durable = false
  maxQueuedLength: number | undefined
  sendmailTime: number | undefined
  #hub!: Hub
  #notify: Notify | undefined
  readonly #rules: Input['rules']
  readonly #mail: Partial<Input['mail']>
  readonly #log = createLog(
    { level: 'info', format: 'json' },
    new Writable({
      write: (chunk, _encoding, done) => {
        this.logged.push(JSON.parse(String(chunk)))
        done()
      },
    }),
  )

  private constructor(rules: Input['rules'], mail: Partial<Input['mail']>) {
    this.#rules = rules
    this.#mail = mail
    this.journal = new MemoryJournal({ bounds: wide, log: this.#log, clock: this.clock.now })
    this.program = NotifyRig.taking
  }

  /** What takes mails, or fails when it is told to. */
  static readonly taking = `if [ -e away ]; then echo x >> attempts; echo "The queue is full" >&2; exit 75; fi
name=$(ls | grep -c 'mail$')
{ echo "$*"; cat; } > "$name.part" && mv "$name.part" "$name.mail"`

  /** What stands in the place of sendmail, as a script of sh; `undefined` for nothing. */
  set program(script: string | undefined) {
    const file = join(this.directory, 'sendmail')
    rmSync(file, { force: true })
    if (script !== undefined) writeFileSync(file, `#!/bin/sh\ncd ${this.directory}\n${script}\n`, { mode: 0o755 })
  }

  /** @param mail instead of the program */
  static async start(
    rules: Input['rules'],
    mail: Partial<Input['mail']> = { sendmail: 'sendmail' },
  ): Promise<NotifyRig> {
    const rig = new NotifyRig(rules, mail)
    await rig.open()
    return rig
  }

  async open(rules = this.#rules): Promise<void> {
    const { journal, clock, directory } = this
    const recent = { maxEvents: 100, maxBytes: 1024 ** 2 }
    const bounds = { maxQueuedEvents: 1000, maxQueuedBytes: 4 * 1024 ** 2, recent }
    this.#hub = await openHub({ journal, bounds, log: this.#log })
    const config = notifySection.parse({ mail: { from: 'mqway@example.org', ...this.#mail }, rules })
    const isConnected = () => this.connected
    const log = this.#log
    const hub = this.#hub
    const store = this.durable ? await openLevelStore({ directory: join(directory, 'notify'), log }) : new MemoryStore()
    const { maxQueuedLength, sendmailTime } = this
    const encode = (event: Event) => eventJson(event, { json: false })
    const own = { hub, journal, encode, isConnected, store, cwd: directory, clock, log }
    this.#notify = await openNotify({
      config,
      deadLetters: join(directory, 'dead-letters.jsonl'),
      maxQueuedLength,
      sendmailTime,
      ...own,
    })
  }

  /** Ends it, as a stop of the gateway does; `open` starts it again. */
  async stop(): Promise<void> {
    await this.#notify?.close()
    this.#hub.close()
    this.clock.stop()
  }

  publish(topic: string, payload: string | Buffer | object, retain = false): Promise<Event> {
    const bytes = Buffer.isBuffer(payload)
      ? payload
      : Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload))
    return this.journal.append({ topic, payload: bytes, qos: 1, retain })
  }

  /** What `mqway supervisor` publishes when a process ends. */
  exit(processname: string, more: object = {}): Promise<Event> {
    const said = {
      processname,
      groupname: processname,
      state: 'EXITED',
      from_state: 'RUNNING',
      expected: false,
      pid: 2766,
    }
    const eventname = 'PROCESS_STATE_EXITED'
    return this.publish(`supervisor/${encodeURIComponent(processname)}/x/EXITED`, { ...said, eventname, ...more })
  }

  /** Has the clock go on once all that was published is written down. */
  async pass(milliseconds: number): Promise<void> {
    await this.settle()
    this.clock.pass(milliseconds)
    await this.settle()
  }

  /** The same, a second at a time, until the log says something. */
  async passUntil(text: string, times = 1): Promise<void> {
    const isTold = (): boolean => this.logged.filter(({ msg }) => String(msg).includes(text)).length >= times
    while (!isTold()) await this.pass(1000)
    await this.settle()
  }

  /** Resolves when what is under way without the clock, and without the disk, is over. */
  async settle(): Promise<void> {
    for (let turns = 0; turns < 200; turns++) await new Promise(resolve => setImmediate(resolve))
  }

  /** Whether sendmail fails. */
  set isAway(away: boolean) {
    const file = join(this.directory, 'away')
    if (away) writeFileSync(file, '')
    else rmSync(file)
  }

  /** Ends the process whose id sendmail has written into `attempts`, if it has not been ended. */
  killLeftover(): void {
    try {
      process.kill(Number(readFileSync(join(this.directory, 'attempts'), 'utf8')), 'SIGKILL')
    } catch (error) {
      // It is gone, or has not come so far.
      if (!(error instanceof Error && 'code' in error && /ESRCH|ENOENT/.test(String(error.code)))) throw error
    }
  }

  /** What has become of mails since it was opened. */
  get figures(): NotificationFigures | undefined {
    return this.#notify?.figures.mails
  }

  /** What has become of the calls of each webhook since it was opened. */
  get webhooks(): ReadonlyMap<string, NotificationFigures> | undefined {
    return this.#notify?.figures.webhooks
  }

  /** How often sendmail has failed. */
  get attempts(): number {
    const file = join(this.directory, 'attempts')
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').length : 0
  }

  /** The mails that were sent, in their order. */
  get mails(): SentMail[] {
    const files = readdirSync(this.directory).filter(name => name.endsWith('.mail'))
    return files
      .sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10))
      .map(name => {
        const [args = '', ...rest] = readFileSync(join(this.directory, name), 'utf8').split('\n')
        return { args, ...parseMail(rest.join('\n')) }
      })
  }

  /** Resolves when so many mails have been sent, and nothing else is being sent. */
  async sent(count: number): Promise<SentMail[]> {
    await eventually(() => this.mails.length >= count)
    await this.told('Sent a mail', count)
    return this.mails
  }

  /** Resolves when the log has said it so often. */
  async told(text: string, times = 1): Promise<void> {
    await eventually(() => this.logged.filter(({ msg }) => String(msg).includes(text)).length >= times)
    await this.settle()
  }

  async close(): Promise<void> {
    await this.stop()
    await this.journal.close()
    rmSync(this.directory, { recursive: true })
  }
}

/** A certificate, signed by itself. */
export function makeCertificate(
  directory: string,
  altNames = 'DNS:localhost,IP:127.0.0.1',
): { readonly cert: string; readonly key: string } {
  const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')]
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  const names = ['-subj', '/CN=localhost', '-addext', `subjectAltName=${altNames}`]
  execFileSync('openssl', [...request, ...names, '-keyout', key, '-out', cert], { stdio: 'pipe' })
  return { cert, key }
}
