import { isIP } from 'node:net'
import { z } from 'zod'
import { portsOf } from './listeners.js'
import type { Problem } from './problems.js'
import { redisOf } from './push.js'
import type { Config } from './schema.js'
import { duration } from './units.js'
import { file } from './values.js'

/*
 * The options of certificates that a CA issues by ACME (RFC 8555): `https.acme`.
 */

/** Names in one certificate: the maximum of Let's Encrypt. */
const maxDomains = 100

/** Labels of letters, digits and hyphens (RFC 1123 §2.1). */
const dnsName = /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

function domainProblem(name: string): string | undefined {
  if (name.startsWith('*.'))
    return 'must be a name without *: only the challenge dns-01 gets certificates for all names of a domain, and mqway does not have it'
  if (isIP(name) !== 0) return 'must be a name: mqway orders no certificates for IP addresses'
  if (!dnsName.test(name))
    return 'must be a DNS name such as www.example.org, in ASCII (xn--…) for a name with other letters'
  return undefined
}

const domain = z
  .string()
  .toLowerCase()
  .superRefine((name, context) => {
    const message = domainProblem(name)
    if (message !== undefined) context.addIssue(message)
  })

const directory = z
  .string()
  .refine(url => URL.canParse(url) && new URL(url).protocol === 'https:' && new URL(url).username === '', {
    error: 'must be the https:// URL of the directory of an ACME server, without a user name',
  })

export const acme = z.strictObject({
  domains: z
    .array(domain)
    .min(1)
    .max(maxDomains, { error: `must be a list of at most ${maxDomains} names` })
    .describe('DNS names of the certificate'),
  agreeTerms: z
    .literal(true, { error: 'must be true: you agree to the terms of service of the CA' })
    .describe('true: you agree to the terms of service of the CA'),
  email: z
    .email({ error: 'must be an e-mail address' })
    .max(254)
    .optional()
    .describe('Address at which the CA may reach you'),
  directory: directory
    .default('https://acme-v02.api.letsencrypt.org/directory')
    .describe(
      'Directory of the ACME server; https://acme-staging-v02.api.letsencrypt.org/directory to try it out, with certificates that no client trusts',
    ),
  challenge: z
    .enum(['http-01', 'tls-alpn-01'])
    .optional()
    .describe(
      'How the CA checks the names: at port 80 (http-01) or at port 443 (tls-alpn-01), which must lead to http.port or https.port. Default: http-01, unless http.port is off or only https has its port',
    ),
  renewBefore: duration({ min: '1h', max: '90d' })
    .optional()
    .describe('Time before the expiry from which the certificate is renewed; default: a third of its lifetime'),
  ca: file
    .optional()
    .describe('File with the CA certificates that may sign the certificate of the ACME server itself (PEM)'),
})

/** Ports that the CA connects to (RFC 8555 §8.3; RFC 8737 §3). */
const challengePorts = { 'http-01': 80, 'tls-alpn-01': 443 } as const

export type ChallengeType = keyof typeof challengePorts

/** The challenge that is configured, or the one that suits the ports. */
export function challengeOf({ http, https }: Pick<Config, 'http' | 'https'>): ChallengeType {
  if (https.acme?.challenge !== undefined) return https.acme.challenge
  const [plain, tls] = [portsOf(http.port), portsOf(https.port)]
  if (plain.length === 0 || (tls.includes(443) && !plain.includes(80))) return 'tls-alpn-01'
  return 'http-01'
}

/** Problems of `https.acme` together with other options. */
export function checkAcme(config: Config): Problem[] {
  const { https, http, mqtts, data, push, workers } = config
  const { acme: own } = https
  if (own === undefined) return []
  const option = ['https', 'acme']
  const challenge = challengeOf(config)
  const problems: Problem[] = []
  const add = (message: string, path: readonly PropertyKey[] = option, reads: readonly string[] = []): void => {
    problems.push({ path, message, reads })
  }
  if (https.cert !== undefined || https.key !== undefined) {
    add('is in place of https.cert and https.key: leave out either those or this')
  }
  if (data === 'none') add('needs a data directory, which keeps the account and the certificate', option, ['data'])
  if (portsOf(https.port).length === 0 && mqtts.port === 'off') {
    add('needs https.port or mqtts.port, which serve the certificate', option, ['mqtts'])
  } else if (challenge === 'tls-alpn-01' && portsOf(https.port).length === 0) {
    add('needs https.port, where the CA checks the names', [...option, 'challenge'])
  } else if (challenge === 'http-01' && portsOf(http.port).length === 0) {
    add('needs http.port, where the CA checks the names', [...option, 'challenge'], ['http'])
  }
  const remedy =
    'have one program get the certificate (certbot, for instance), and name its files as https.cert and https.key'
  if (workers !== 1) {
    add(`needs workers: 1, as the CA may connect to another process than the one that ordered: ${remedy}`, option, [
      'workers',
    ])
  }
  if (push !== 'off' && redisOf(push) !== undefined) {
    add(
      `needs a gateway of its own, without push.journal.redis, as the CA may connect to another gateway than the one that ordered: ${remedy}`,
      option,
      ['push'],
    )
  }
  for (const [index, name] of own.domains.entries()) {
    const path = [...option, 'domains', index]
    if (own.domains.indexOf(name) !== index) add('is in this list twice', path)
    const other = https.certificates.findIndex(({ hosts }) => hosts.some(host => isSameName(host, name)))
    if (other !== -1) add(`is what https.certificates[${other}] serves already`, path)
  }
  return problems
}

/** Whether a pattern of `https.certificates` is for this name; regular expressions are left out. */
function isSameName(pattern: string, name: string): boolean {
  const host = pattern.toLowerCase()
  return host.startsWith('*.') ? name.endsWith(host.slice(1)) : host === name
}

/** Warnings about ports that a public CA does not connect to by itself. */
export function acmeWarnings(config: Config): string[] {
  if (config.https.acme === undefined) return []
  const challenge = challengeOf(config)
  const section = challenge === 'http-01' ? 'http' : 'https'
  const port = challengePorts[challenge]
  const ports = portsOf(config[section].port)
  if (ports.includes(port) || ports.some(each => typeof each === 'string')) return []
  return [
    `https.acme: the CA connects to port ${port} (${challenge}), which is not ${section}.port: something must forward it`,
  ]
}
