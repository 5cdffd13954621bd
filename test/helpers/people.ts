import { execFileSync } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import bcrypt from 'bcrypt'
import { SignJWT } from 'jose'
import type { ConfigInput } from '../../src/config/schema.js'

/** `access:` as in a configuration file. */
export type AccessInput = NonNullable<ConfigInput['access']>

/** A client's certificate and key (PEM). */
export interface ClientPem {
  readonly cert: string
  readonly key: string
}

const secret = '0123456789abcdef0123456789abcdef'
const audience = 'mqway'

/**
 * Credentials of users, and the matching `access:`: alice with the password `right` in a file, with a token, and
 * with a certificate; carol with the password `hook`, or the header `x-api-key: good`, known to a web service.
 */
export class People {
  /** The signing key of tokens. */
  readonly secret = secret
  readonly directory = mkdtempSync(join(tmpdir(), 'mqway-people-'))
  /** All identity sources together, without rules. */
  readonly access: AccessInput
  readonly #webhook: http.Server
  #revocationsExpire = 0

  private constructor(webhook: http.Server) {
    this.#webhook = webhook
    const { port } = webhook.address() as AddressInfo
    // The lowest cost, instead of the usual 60 ms.
    writeFileSync(this.file('users'), `alice:${bcrypt.hashSync('right', 4)}\n`)
    this.#makeCertificates()
    this.access = {
      htpasswd: this.file('users'),
      jwt: { secret, audience, cookie: 'session', clockTolerance: '0ms' },
      clientCertificates: { ca: this.file('ca.pem'), crl: this.file('crl.pem') },
      webhook: { url: `http://127.0.0.1:${port}/`, timeout: '2s' },
    }
  }

  static async start(): Promise<People> {
    const webhook = http.createServer(async (request, response) => {
      const parts: Buffer[] = []
      for await (const part of request) parts.push(part)
      const { user, password, headers } = JSON.parse(String(Buffer.concat(parts)))
      if (headers?.['x-api-key'] === 'good') return void response.end(JSON.stringify({ allow: true, user: 'carol' }))
      // The response for `broken` is invalid.
      if (user === 'broken') response.writeHead(500).end()
      else
        response.end(JSON.stringify(user === 'carol' && password === 'hook' ? { allow: true, user } : { allow: false }))
    })
    await once(webhook.listen(0, '127.0.0.1'), 'listening')
    return new People(webhook)
  }

  file(name: string): string {
    return join(this.directory, name)
  }

  /** A token of alice, with these claims in addition to, or in place of, its own. */
  token(claims: Record<string, unknown> = {}, key = secret): Promise<string> {
    return new SignJWT({ sub: 'alice', aud: audience, exp: Math.floor(Date.now() / 1000) + 60, ...claims })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(Buffer.from(key))
  }

  /** A forged token: with any header, and with any signature or none. */
  forgedToken(header: object, key?: string): string {
    const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
    const text = `${encode(header)}.${encode({ sub: 'alice', aud: audience, exp: Date.now() / 1000 + 60 })}`
    return `${text}.${key === undefined ? '' : createHmac('sha256', key).update(text).digest('base64url')}`
  }

  /** `alice`, `revoked`, and `foreign`, signed by another CA. */
  certificate(name: 'alice' | 'revoked' | 'foreign'): ClientPem {
    return { cert: readFileSync(this.file(`${name}.pem`), 'utf8'), key: readFileSync(this.file(`${name}.key`), 'utf8') }
  }

  /** Revokes a certificate of the CA. */
  revoke(name: 'alice' | 'revoked'): void {
    this.#openssl('ca', '-config', 'ca.cnf', '-cert', 'ca.pem', '-keyfile', 'ca.key', '-revoke', `${name}.pem`)
    this.issueRevocations()
  }

  /** Writes the revocation list, with its lifetime in seconds. */
  issueRevocations(seconds = 86_400): void {
    const list = ['-gencrl', '-crlsec', String(seconds), '-out', 'crl.pem']
    this.#openssl('ca', '-config', 'ca.cnf', '-cert', 'ca.pem', '-keyfile', 'ca.key', ...list)
    this.#revocationsExpire = Date.now() + seconds * 1000
  }

  /** Resolves when the revocation list has expired. */
  async revocationsExpired(): Promise<void> {
    // The list has a resolution of one second.
    await new Promise(resolve => setTimeout(resolve, this.#revocationsExpire + 1000 - Date.now()))
  }

  async stop(): Promise<void> {
    this.#webhook.closeAllConnections()
    await new Promise(resolve => this.#webhook.close(resolve))
    rmSync(this.directory, { recursive: true, force: true })
  }

  #makeCertificates(): void {
    for (const ca of ['ca', 'other']) {
      this.#openssl('req', '-x509', ...newKey, '-keyout', `${ca}.key`, '-out', `${ca}.pem`, '-subj', `/CN=${ca}`)
    }
    for (const [name, user, ca] of [
      ['alice', 'alice', 'ca'],
      ['revoked', 'alice', 'ca'],
      ['foreign', 'alice', 'other'],
    ] as const) {
      this.#openssl('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${user}`)
      const signed = ['-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-CAcreateserial', '-out', `${name}.pem`]
      this.#openssl('x509', '-req', '-in', `${name}.csr`, ...signed, '-days', '1')
    }
    writeFileSync(this.file('index.txt'), '')
    writeFileSync(this.file('number'), '01\n')
    writeFileSync(this.file('ca.cnf'), revocationSettings)
    this.revoke('revoked')
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.directory, stdio: 'ignore' })
  }
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

const revocationSettings = `[ca]
default_ca=x
[x]
database=index.txt
crlnumber=number
default_md=sha256
default_crl_days=1
`
