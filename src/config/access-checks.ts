import {
  type AccessConfig,
  type AccessRule,
  algorithmsOf,
  hasIdentitySource,
  type JwtConfig,
  secretAlgorithms,
} from './access.js'
import { isTlsListener, listeners } from './listeners.js'
import type { Problem } from './problems.js'
import type { Config } from './schema.js'

/*
 * Checks of the options of `access:` together, and with others.
 */

const identities = 'htpasswd, jwt, clientCertificates or webhook'

/** Returns all problems, except of files. */
export function checkAccess(config: Config): Problem[] {
  const { access } = config
  if (access === undefined) return checkRequired(config, false)
  const known = hasIdentitySource(access)
  return [
    ...(known || access.rules ? [] : [{ path: ['access'], message: `needs at least one of ${identities}, or rules` }]),
    ...checkRequired(config, known),
    ...(access.jwt === undefined ? [] : checkJwt(access.jwt)),
    ...checkClientCertificates(config, access),
    ...(access.rules ?? []).flatMap((rule, index) => checkRecipient(['access', 'rules', index, 'to'], rule.to, access)),
  ]
}

/** A tunnel that requires an identity needs a way to authenticate. */
function checkRequired(config: Config, known: boolean): Problem[] {
  if (known) return []
  return config.tunnels.flatMap(({ requireIdentity }, index) =>
    requireIdentity
      ? [
          {
            path: ['tunnels', index, 'requireIdentity'],
            message: `needs one of ${identities} under "access"`,
            reads: ['access'],
          },
        ]
      : [],
  )
}

function checkJwt(jwt: JwtConfig): Problem[] {
  const path = ['access', 'jwt']
  const keys = (['secret', 'secretFile', 'jwks'] as const).filter(key => jwt[key] !== undefined)
  const [key] = keys
  if (key === undefined || keys.length > 1) {
    const given = keys.length === 0 ? '' : `; there are ${keys.join(' and ')}`
    return [{ path, message: `needs exactly one of secret, secretFile and jwks${given}` }]
  }
  return [...checkAlgorithms(jwt, key), ...checkSecret(jwt)]
}

/** A public key used as a shared secret would let anybody sign tokens (RFC 8725 §2.1). */
function checkAlgorithms(jwt: JwtConfig, key: string): Problem[] {
  return (jwt.algorithms ?? []).flatMap((algorithm, index) => {
    const path = ['access', 'jwt', 'algorithms', index]
    const symmetric = Object.hasOwn(secretAlgorithms, algorithm)
    if (symmetric && key === 'jwks') {
      return [{ path, message: 'does not go with jwks: a public key is no secret. Use RS256, ES256 or EdDSA' }]
    }
    if (!symmetric && key !== 'jwks') {
      return [{ path, message: `does not go with ${key}, which needs HS256, HS384 or HS512; ${algorithm} needs jwks` }]
    }
    return []
  })
}

function checkSecret(jwt: JwtConfig): Problem[] {
  const problem = jwt.secret === undefined ? undefined : secretProblem(Buffer.from(jwt.secret), jwt)
  return problem === undefined ? [] : [{ path: ['access', 'jwt', 'secret'], message: problem }]
}

/**
 * Returns why a shared secret is invalid, to follow its name; `undefined` if it is valid. A secret shorter than the signature can be
 * guessed offline from one token (RFC 7518 §3.2).
 */
export function secretProblem(secret: Uint8Array, jwt: JwtConfig): string | undefined {
  const needed = Object.entries(secretAlgorithms).filter(([name]) => algorithmsOf(jwt).some(used => used === name))
  const [name, bytes] = needed.at(-1) ?? ['HS256', secretAlgorithms.HS256]
  return secret.length < bytes ? `must have at least ${bytes} bytes for ${name}; it has ${secret.length}` : undefined
}

function checkClientCertificates(config: Config, { clientCertificates }: AccessConfig): Problem[] {
  const hasTls = listeners(config).some(({ name }) => isTlsListener(name))
  if (clientCertificates === undefined || hasTls) return []
  const message = 'needs https.port or mqtts.port: only a TLS connection has a certificate'
  return [{ path: ['access', 'clientCertificates'], message, reads: ['https', 'mqtts', 'mqtt', 'broker'] }]
}

function checkRecipient(path: readonly PropertyKey[], to: AccessRule['to'], access: AccessConfig): Problem[] {
  if (to === 'anonymous') return []
  if (!hasIdentitySource(access)) {
    return [{ path, message: `needs one of ${identities}: without it, all clients are anonymous` }]
  }
  if (to === 'authenticated') return []
  if (to.role !== undefined && access.jwt === undefined && access.webhook === undefined) {
    return [{ path: [...path, 'role'], message: 'needs jwt or webhook under "access": nothing else gives roles' }]
  }
  if (to.claim !== undefined && access.jwt === undefined) {
    return [{ path: [...path, 'claim'], message: 'needs jwt under "access": only a token has claims' }]
  }
  return []
}
