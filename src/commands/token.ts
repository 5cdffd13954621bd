import { type JWTPayload, SignJWT } from 'jose'
import { readSecret } from '../access/token-keys.js'
import { isUserName } from '../base/identity.js'
import { algorithmsOf, type JwtConfig } from '../config/access.js'
import { requireFlags, UsageError } from '../config/flags.js'
import { loadConfig } from '../config/load.js'
import { formatDuration, parseDuration } from '../config/units.js'
import { ruleFilterProblem } from '../topics/rule-filter.js'

const flags = ['user', 'role', 'publish', 'subscribe', 'expires', 'config'] as const

interface TokenOptions {
  readonly user: string
  readonly roles: readonly string[]
  readonly publish: readonly string[]
  readonly subscribe: readonly string[]
  /** In milliseconds. */
  readonly expires: number
  /** The configuration file; `undefined` for the default. */
  readonly config: string | undefined
}

/** In milliseconds: tokens cannot be revoked. */
const maxExpires = 3650 * 24 * 60 * 60 * 1000

/**
 * `mqway token --user U`: prints a token signed with the configured secret.
 *
 * @returns exit code 0; 2 for an invalid flag, or a configuration without secret
 * @throws {ConfigError} for an invalid configuration
 */
export async function token(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  try {
    const options = readOptions(argv)
    const cwd = process.cwd()
    const { config, file } = loadConfig({
      argv: options.config === undefined ? [] : ['--config', options.config],
      env,
      cwd,
    })
    const jwt = config.access?.jwt
    const secret = jwt === undefined ? undefined : await secretOf(jwt, cwd)
    if (jwt === undefined || secret === undefined) {
      const where = file === undefined ? 'there is no mqway.yaml; it' : file
      throw new UsageError(`${where} needs access.jwt.secret or access.jwt.secretFile; other keys are the issuer's`)
    }
    process.stdout.write(`${await mint(options, jwt, secret)}\n`)
    return 0
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    process.stderr.write(`mqway token: ${error.message}\n`)
    return 2
  }
}

function readOptions(argv: readonly string[]): TokenOptions {
  const given = requireFlags(argv, flags)
  const textsOf = (flag: (typeof flags)[number]) => given.flatMap(({ name, text }) => (name === flag ? [text] : []))
  const publish = textsOf('publish')
  const subscribe = textsOf('subscribe')
  checkFilters('publish', publish)
  checkFilters('subscribe', subscribe)
  return {
    user: userOf(textsOf('user').at(-1)),
    roles: textsOf('role'),
    publish,
    subscribe,
    expires: expiresOf(textsOf('expires').at(-1) ?? '1h'),
    config: textsOf('config').at(-1),
  }
}

function userOf(user: string | undefined): string {
  if (user === undefined) throw new UsageError('--user: is missing; it is the user of the token')
  if (isUserName(user)) return user
  throw new UsageError(`--user: ${JSON.stringify(user)} must have 1 to 255 bytes, and no control characters`)
}

function checkFilters(flag: string, filters: readonly string[]): void {
  for (const filter of filters) {
    const problem = ruleFilterProblem(filter)
    if (problem !== undefined) throw new UsageError(`--${flag}: ${JSON.stringify(filter)} ${problem}`)
  }
}

function expiresOf(text: string): number {
  const expires = parseDuration(text, maxExpires)
  if (expires !== undefined && expires >= 1000) return expires
  throw new UsageError(
    `--expires: ${JSON.stringify(text)} must be a time such as 15m, 1h or 30d, from 1s to ${formatDuration(maxExpires)}`,
  )
}

async function secretOf(jwt: JwtConfig, cwd: string): Promise<Uint8Array | undefined> {
  try {
    return await readSecret(jwt, cwd)
  } catch (error) {
    throw new UsageError(`access.jwt.secretFile: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** Creates a token that this configuration accepts. Without its own filters, the configuration's rules apply. */
async function mint(options: TokenOptions, jwt: JwtConfig, secret: Uint8Array): Promise<string> {
  const { user, roles, publish, subscribe } = options
  const now = Math.floor(Date.now() / 1000)
  const [issuer] = [jwt.issuer ?? []].flat()
  const [audience] = [jwt.audience ?? []].flat()
  const payload: JWTPayload = {
    [jwt.userClaim]: user,
    ...(roles.length === 0 ? {} : { [jwt.rolesClaim]: roles }),
    ...(publish.length + subscribe.length === 0 ? {} : { mqtt: { publish, subscribe } }),
    ...(issuer === undefined ? {} : { iss: issuer }),
    ...(audience === undefined ? {} : { aud: audience }),
    iat: now,
    exp: now + Math.floor(options.expires / 1000),
  }
  const [alg = 'HS256'] = algorithmsOf(jwt)
  return new SignJWT(payload).setProtectedHeader({ alg, typ: 'JWT' }).sign(secret)
}
