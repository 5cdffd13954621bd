import { readFile } from 'node:fs/promises'
import type { Logger } from '../../base/log.js'
import type { Metrics } from '../../base/metrics.js'
import { StartError } from '../../base/start-error.js'
import { type Certificate, CertificateError, type CertificateFiles } from '../certificate.js'
import { AcmeFiles, isStandIn, missingNames, type OrderHistory } from './acme-files.js'
import { PendingChallenges } from './pending-challenges.js'

export interface AcmeCertificateOptions {
  /** The data directory. */
  readonly data: string
  /** DNS names of the certificate, in lower case. */
  readonly domains: readonly string[]
  readonly email: string | undefined
  /** URL of the directory of the ACME server. */
  readonly directory: string
  readonly challenge: 'http-01' | 'tls-alpn-01'
  /** Milliseconds before the expiry from which it is renewed; default: a third of its lifetime. */
  readonly renewBefore: number | undefined
  /** File with the CAs that may sign the certificate of the ACME server (PEM); default: those of Node. */
  readonly ca: string | undefined
  readonly log: Logger
  readonly metrics: Pick<Metrics, 'acmeOrdered'>
}

const minute = 60 * 1000
const hour = 60 * minute

/** Orders within an hour, also of earlier processes: Let's Encrypt allows five failed ones for a name. */
const maxOrdersPerHour = 4
/** Milliseconds from a failed order to the next one; twice as long after each. */
const [firstRetry, maxRetry] = [5 * minute, 6 * hour]
/** Milliseconds between two looks at the clock, which may be set. */
const checkInterval = hour
/** Part of the time until the next order by which it is longer at random, so that gateways do not order at the same moment. */
const jitter = 0.1

/**
 * A certificate that a CA issues by ACME (RFC 8555), in a file of the data directory. It is renewed in time; until the new one has been checked and written,
 * the old one stays, whatever fails.
 */
export class AcmeCertificate {
  /** What the web servers respond to the CA. */
  readonly challenges = new PendingChallenges()
  readonly #options: AcmeCertificateOptions
  readonly #files: AcmeFiles
  readonly #closing = new AbortController()
  #current: Certificate
  /** The ACME server that issued it; empty for none. */
  #issuer: string
  /** When orders began, in milliseconds since 1970. */
  #orders: readonly number[]
  /** Random, from 0 to 1; for each certificate. */
  #chance = Math.random()
  #failures = 0
  /** The time that was logged last. */
  #announced = 0
  #onReplaced: () => Promise<void> = async () => {}
  #working: Promise<void> | undefined
  /** Ends the wait for the next order. */
  #wake: () => void = () => {}

  private constructor(options: AcmeCertificateOptions, files: AcmeFiles, current: Certificate, history: OrderHistory) {
    this.#options = options
    this.#files = files
    this.#current = current
    this.#issuer = history.directory
    this.#orders = history.orders.slice(-maxOrdersPerHour)
  }

  /**
   * Reads the stored certificate, or makes one that signs itself, to be served meanwhile.
   *
   * @throws {StartError} if the files cannot be used
   */
  static async open(options: AcmeCertificateOptions): Promise<AcmeCertificate> {
    try {
      const files = await AcmeFiles.open(options.data)
      const stored = await readStored(files, options.log)
      const current = stored && !isStandIn(stored) ? stored : await files.writeStandIn(options.domains)
      return new AcmeCertificate(options, files, current, await files.readHistory())
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new StartError(`no certificate by ACME in ${options.data}: ${reason}`, { cause })
    }
  }

  /** Files with a certificate at any time. */
  get files(): CertificateFiles {
    return this.#files.certificate
  }

  /**
   * Begins to order and to renew the certificate, once the web servers can respond to the CA.
   *
   * @param onReplaced has the servers read the files again; must not reject
   */
  start(onReplaced: () => Promise<void>): void {
    const { domains, directory, challenge, log } = this.#options
    this.#onReplaced = onReplaced
    if (isStandIn(this.#current)) {
      log.warn({ domains, directory, challenge }, 'There is no certificate yet: clients get one that none trusts')
    }
    this.#working ??= this.#run()
  }

  /** Tries a failed order again now, within the bound of an hour. */
  retry(): void {
    this.#failures = 0
    this.#wake()
  }

  /** Ends an order under way. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort()
    this.#wake()
    await this.#working
  }

  async #run(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      const next = this.#nextOrder()
      const delay = next - Date.now()
      if (delay > 0) {
        this.#announce(next)
        await this.#wait(Math.min(delay, checkInterval))
      } else {
        await this.#order()
      }
    }
  }

  #announce(next: number): void {
    if (next === this.#announced) return
    this.#announced = next
    const { domains, log } = this.#options
    log.info({ domains }, `The next order of the certificate is at ${new Date(next).toISOString()}`)
  }

  #wait(milliseconds: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, milliseconds).unref()
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** When to order, in milliseconds since 1970. */
  #nextOrder(): number {
    const now = Date.now()
    // Times of the future come from a clock that was set back.
    const orders = this.#orders.filter(time => time <= now)
    const last = orders.at(-1) ?? 0
    const retry = this.#failures === 0 ? 0 : last + retryDelay(this.#failures) * (1 + jitter * this.#chance)
    const oldest = orders.at(-maxOrdersPerHour)
    const allowed = oldest === undefined ? 0 : oldest + hour
    return Math.max(this.#isUnsuitable() ? 0 : this.#renewal(), retry, allowed)
  }

  /** Whether the current certificate is not what the configuration asks for. */
  #isUnsuitable(): boolean {
    const { domains, directory } = this.#options
    return isStandIn(this.#current) || this.#issuer !== directory || missingNames(this.#current, domains).length > 0
  }

  #renewal(): number {
    const { validFrom, validTo } = this.#current
    const lifetime = validTo - validFrom
    const third = lifetime / 3
    // A certificate must not be due when it is new.
    const before = Math.min(this.#options.renewBefore ?? third, lifetime / 2)
    const due = validTo - before * (1 - jitter * this.#chance)
    // Without a date that can be read, only the other bounds count.
    return Number.isNaN(due) ? 0 : due
  }

  /** Never rejects. */
  async #order(): Promise<void> {
    const { domains, directory, log, metrics } = this.#options
    const began = Date.now()
    try {
      this.#orders = [...this.#orders, began].slice(-maxOrdersPerHour)
      // Where nothing can be written, the CA must not be asked again and again for certificates that are lost.
      await this.#files.writeHistory({ directory: this.#issuer, orders: this.#orders })
      const pem = await this.#request()
      this.#current = await this.#files.writeCertificate(pem, domains)
      this.#issuer = directory
      this.#chance = Math.random()
      this.#failures = 0
    } catch (error) {
      if (this.#closing.signal.aborted) return
      this.#failures++
      metrics.acmeOrdered('failure')
      log.error({ domains, directory }, `Failed to get a certificate, the old one stays: ${describeFailure(error)}`)
      return
    }
    metrics.acmeOrdered('success')
    const seconds = Math.round((Date.now() - began) / 1000)
    await this.#onReplaced()
    log.info({ domains, directory, seconds }, 'The CA has issued a certificate')
    await this.#files.writeHistory({ directory, orders: this.#orders }).catch(error => {
      log.warn(
        `Failed to write who issued the certificate, which the next start orders anew: ${describeFailure(error)}`,
      )
    })
  }

  async #request(): Promise<string> {
    const { domains, directory, email, challenge, ca } = this.#options
    // Imported on demand, as it is large.
    const { makeAccountKey, orderCertificate } = await import('./order.js')
    return orderCertificate({
      ...{ domains, directory, email, challenge },
      ca: ca === undefined ? undefined : await readFile(ca, 'utf8'),
      accountKey: await this.#files.accountKey(makeAccountKey),
      challenges: this.challenges,
      signal: this.#closing.signal,
    })
  }
}

/** A damaged certificate is set aside; one that cannot be read is an error, as it may be a good one. */
async function readStored(files: AcmeFiles, log: Logger): Promise<Certificate | undefined> {
  try {
    return await files.readCertificate()
  } catch (error) {
    const isUnread = error instanceof CertificateError && error.cause instanceof Error && 'syscall' in error.cause
    if (isUnread || !(error instanceof CertificateError)) throw error
    log.error(`The stored certificate is damaged, and is renamed to certificate.damaged.pem: ${error.message}`)
    await files.setAsideCertificate()
    return undefined
  }
}

/** @param failures at least 1 */
function retryDelay(failures: number): number {
  return Math.min(firstRetry * 2 ** (failures - 1), maxRetry)
}

/** An error of several addresses has no message of its own. */
function describeFailure(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return describeFailure(error.errors[0])
  if (!(error instanceof Error)) return String(error)
  if (error.message === '' && error.cause !== undefined) return describeFailure(error.cause)
  return error.message
}
