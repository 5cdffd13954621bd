import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { createLocalJWKSet, createRemoteJWKSet, type JWTVerifyGetKey } from 'jose'
import type { Logger } from '../base/log.js'
import { isWebUrl, type JwtConfig } from '../config/access.js'
import { secretProblem } from '../config/access-checks.js'
import { WatchedFile } from './watched-file.js'

/** The keys that verify token signatures. */
export interface TokenKeys {
  /** Returns the key that a token names. Rejects with an error of `jose` or of `fetch`. */
  readonly find: JWTVerifyGetKey
  /** Reads their file again, if they have one. */
  reload(): Promise<void>
  close(): Promise<void>
}

/** Options of fetching an issuer's keys, in milliseconds. */
const remote = {
  timeoutDuration: 5000,
  /** Minimum time between fetches because of tokens with an unknown key. */
  cooldownDuration: 30_000,
  /** How long a key that the issuer has withdrawn is still accepted. */
  cacheMaxAge: 600_000,
}

/**
 * Opens the configured keys: a secret, or the public keys of an issuer from a file or a URL. A file is read again when it changes; a URL
 * is fetched for the first token.
 *
 * @throws {StartError} when a file cannot be read or used
 */
export async function openTokenKeys(config: JwtConfig, cwd: string, log: Logger): Promise<TokenKeys> {
  const { secret, secretFile, jwks } = config
  if (secretFile !== undefined) {
    const parse = (content: Buffer): Uint8Array => checkedSecret(content, config)
    const file = await WatchedFile.start({ path: resolve(cwd, secretFile), what: 'the secret of tokens', parse, log })
    return fromFile(file, secret => async () => secret)
  }
  if (jwks === undefined) {
    const bytes = Buffer.from(secret ?? '')
    return { find: async () => bytes, reload: async () => {}, close: async () => {} }
  }
  if (isWebUrl(jwks)) {
    return { find: createRemoteJWKSet(new URL(jwks), remote), reload: async () => {}, close: async () => {} }
  }
  const file = await WatchedFile.start({ path: resolve(cwd, jwks), what: 'the file of keys', parse: parseKeys, log })
  return fromFile(file, keys => keys)
}

/**
 * Reads the secret that signs tokens.
 *
 * @returns `undefined` if tokens are verified with public keys
 * @throws {Error} when its file cannot be read, or it is too short
 */
export async function readSecret(config: JwtConfig, cwd: string): Promise<Uint8Array | undefined> {
  if (config.secret !== undefined) return Buffer.from(config.secret)
  if (config.secretFile === undefined) return undefined
  return checkedSecret(await readFile(resolve(cwd, config.secretFile)), config)
}

function fromFile<T>(file: WatchedFile<T>, finder: (content: T) => JWTVerifyGetKey): TokenKeys {
  return {
    find: (header, token) => finder(file.current)(header, token),
    reload: () => file.reload(),
    close: () => file.close(),
  }
}

/** A line end at the end of the file is not part of the secret. */
function checkedSecret(content: Buffer, config: JwtConfig): Uint8Array {
  const text = content.toString('latin1').replace(/\r?\n$/, '')
  const secret = content.subarray(0, text.length)
  const problem = secretProblem(secret, config)
  if (problem !== undefined) throw new Error(problem)
  return secret
}

function parseKeys(content: Buffer): JWTVerifyGetKey {
  return createLocalJWKSet(JSON.parse(content.toString()))
}
