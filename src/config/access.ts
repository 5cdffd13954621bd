import { z } from 'zod'
import { ruleFilterProblem } from '../topics/rule-filter.js'
import { duration } from './units.js'
import { file, fileFormat, redacted, secret, wholeNumber } from './values.js'

/*
 * The options of `access:`: authentication and authorization.
 */

/** Signature algorithms with a shared secret (RFC 7518 §3.2), and the minimum bytes of each secret. */
export const secretAlgorithms = { HS256: 32, HS384: 48, HS512: 64 } as const

/** Signature algorithms with a public key (RFC 7518 §3.3 to §3.5, RFC 8037). */
const publicKeyAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const

const algorithmNames = ['HS256', 'HS384', 'HS512', ...publicKeyAlgorithms] as const
const algorithm = z.enum(algorithmNames, { error: `must be one of ${algorithmNames.join(', ')}` })

const name = z.string().min(1)
const names = z.union([name, z.array(name).min(1)], { error: 'must be a text, or a list of them' })

const wholeUrl = `must be the URL itself; mqway check prints ${redacted} in the place of what its query says`

/** An HTTP URL without credentials. */
export const webUrl = z
  .string()
  .refine(isWebUrl, {
    error: 'must be https://host/path or http://host/path, without a user name or a password in it',
    abort: true,
  })
  .refine(isUnredacted, { error: wholeUrl })

function isUnredacted(url: string): boolean {
  return !url.includes(redacted)
}

/** Whether `text` is an HTTP URL without credentials. */
export function isWebUrl(text: string): boolean {
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) return false
  const { username, password } = new URL(text)
  return username === '' && password === ''
}

const jwks = z
  .string()
  .refine(text => text !== '' && (!/^[a-z][a-z0-9+.-]+:/i.test(text) || isWebUrl(text)), {
    error: 'must be a file, or https://host/path without a user name or a password in it',
    abort: true,
  })
  .refine(isUnredacted, { error: wholeUrl })
  .meta({ format: fileFormat })

/** A token of RFC 9110 §5.6.2: the name of a header, and that of a cookie (RFC 6265 §4.1.1). */
const tokenForm = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const cookieName = z.string().regex(tokenForm, { error: 'must be the name of a cookie, such as token' })
const headerName = z.string().regex(tokenForm, { error: 'must be the name of a header, such as x-api-key' })

const jwt = z.strictObject({
  secret: secret('secret')
    .optional()
    .describe('The secret that signs the tokens, at least 32 bytes: HS256')
    .meta({ writeOnly: true }),
  secretFile: file.optional().describe('File with that secret; a line end at its end is ignored'),
  jwks: jwks.optional().describe('The issuer’s public keys (JWKS): an https URL, or a file'),
  algorithms: z
    .array(algorithm)
    .min(1)
    .optional()
    .describe('Signature algorithms to accept; HS256 with a secret and RS256, ES256 and EdDSA with jwks when left out'),
  issuer: names.optional().describe('Accepted iss: a text, or a list of them'),
  audience: names.optional().describe('Accepted aud: a text, or a list, one of which is enough'),
  clockTolerance: duration({ min: '0ms', max: '10m' })
    .prefault('10s')
    .describe('Tolerated difference of the issuer’s clock, for exp and nbf'),
  cookie: cookieName.optional().describe('A cookie that may hold the token, from pages whose Origin is allowed'),
  userClaim: name.default('sub').describe('Claim with the user name; dots separate nested names'),
  rolesClaim: name.default('roles').describe('Claim with the roles; dots separate nested names'),
})

const clientCertificates = z.strictObject({
  ca: file.describe('File with the CA certificates that sign those of clients (PEM)'),
  crl: file.optional().describe('File with the revoked ones (PEM)'),
  user: z
    .enum(['cn', 'san'])
    .default('cn')
    .describe('Source of the user name: the common name, or the first subject alternative name'),
})

const webhook = z.strictObject({
  url: webUrl.describe('URL for a POST with the properties of a connection'),
  timeout: duration({ min: '100ms', max: '1m' })
    .prefault('5s')
    .describe('Timeout of its response, after which the connection is refused'),
  headers: z
    .array(headerName)
    .default([])
    .describe('Request headers to pass on; cookie only from pages whose Origin is allowed'),
  secret: secret('secret')
    .optional()
    .describe('Sent as Authorization: Bearer, to authenticate mqway')
    .meta({ writeOnly: true }),
})

const tickets = z.strictObject({
  expires: duration({ min: '1s', max: '10m' }).prefault('30s').describe('Lifetime of an unused ticket'),
  max: wholeNumber(1, 1_000_000).default(10_000).describe('Unused tickets; beyond: 503'),
})

const filter = z.string().superRefine((text, context) => {
  const problem = ruleFilterProblem(text)
  if (problem !== undefined) context.addIssue(problem)
})

const claimValue = z.union([z.string(), z.number(), z.boolean()], { error: 'must be a text, a number, true or false' })

const recipientForms = 'must be anonymous, authenticated, {user: name}, {role: name} or {claim: {name: value}}'

const recipient = z
  .union(
    [
      z.literal(['anonymous', 'authenticated']),
      z
        .strictObject({
          user: names.optional().describe('A user name, or a list of them'),
          role: names.optional().describe('A role, or a list of which one is enough'),
          claim: z
            .record(name, claimValue)
            .optional()
            .describe(
              'Claims of the token with their required values; for a claim that is a list, one match is enough',
            ),
        })
        .superRefine((value, context) => {
          const given = Object.values(value).filter(part => part !== undefined)
          // An unknown key is a problem of its own.
          if (given.length !== 1 && context.issues.length === 0)
            context.addIssue('needs exactly one of user, role and claim')
        }),
    ],
    { error: recipientForms },
  )
  .describe('anonymous (everybody), authenticated (clients with a user name), or a mapping with user, role or claim')

const noAdmin = 'must not be given to anonymous: everybody could disconnect everybody'

const rule = z
  .strictObject({
    to: recipient,
    publish: z
      .array(filter)
      .default([])
      .describe('Topic filters to publish to; %u is the user name, %c the client id, %% a %'),
    subscribe: z
      .array(filter)
      .default([])
      .describe('Topic filters to subscribe to; clients may also subscribe to parts of them. Same placeholders'),
    admin: z
      .boolean()
      .optional()
      .describe('List all connected clients, and disconnect them (/v1/clients); not for anonymous'),
  })
  .superRefine(({ to, publish, subscribe, admin }, context) => {
    if (publish.length + subscribe.length === 0 && admin !== true)
      context.addIssue('gives nothing: needs publish, subscribe or admin')
    if (admin === true && to === 'anonymous') context.addIssue({ code: 'custom', path: ['admin'], message: noAdmin })
  })

/** `access:`: authentication and authorization. */
export const access = z.strictObject({
  htpasswd: file.optional().describe('File with user names and bcrypt hashes, which mqway passwd writes'),
  jwt: jwt.optional().describe('JSON web tokens: exactly one of secret, secretFile and jwks'),
  clientCertificates: clientCertificates.optional().describe('TLS certificates of clients, on https.port'),
  webhook: webhook.optional().describe('A web service that authenticates clients and may give them topic rules'),
  tickets: tickets.prefault({}).describe('Single-use tickets for EventSource and WebSocket, which cannot send headers'),
  rules: z
    .array(rule)
    .min(1)
    .optional()
    .describe('Topic rules. Without them, authenticated clients may do everything, except on topics that begin with $'),
})

/** `access:` as the program uses it. */
export type AccessConfig = z.output<typeof access>
export type JwtConfig = NonNullable<AccessConfig['jwt']>
export type WebhookConfig = NonNullable<AccessConfig['webhook']>
export type AccessRule = NonNullable<AccessConfig['rules']>[number]

/** The accepted signature algorithms: as configured, or those of the kind of key. */
export function algorithmsOf({ algorithms, jwks: keys }: JwtConfig): readonly (typeof algorithmNames)[number][] {
  return algorithms ?? (keys === undefined ? ['HS256'] : ['RS256', 'ES256', 'EdDSA'])
}

/** Whether `access:` can authenticate anybody. */
export function hasIdentitySource({
  htpasswd,
  jwt: tokens,
  clientCertificates: tls,
  webhook: hook,
}: AccessConfig): boolean {
  return [htpasswd, tokens, tls, hook].some(part => part !== undefined)
}

/** Whether clients without credentials are admitted: without `access:`, with `anonymous: true`, or by a rule. */
export function allowsAnonymous(config: { anonymous: boolean; access?: AccessConfig | undefined }): boolean {
  if (config.access === undefined || config.anonymous) return true
  return (config.access.rules ?? []).some(({ to }) => to === 'anonymous')
}

/** The kinds of credentials accepted by `access` that browsers add to requests of any page by themselves. */
export function ambientCredentials(access: AccessConfig | undefined): ('cookies' | 'certificates')[] {
  const takesCookies =
    access?.jwt?.cookie !== undefined || access?.webhook?.headers.some(name => name.toLowerCase() === 'cookie')
  return [
    ...(takesCookies ? (['cookies'] as const) : []),
    ...(access?.clientCertificates === undefined ? [] : (['certificates'] as const)),
  ]
}
