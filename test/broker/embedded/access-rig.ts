import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import bcrypt from 'bcrypt'
import { SignJWT } from 'jose'
import { generate, type IConnectPacket } from 'mqtt-packet'
import { type Access, openAccess } from '../../../src/access/access.js'
import { MqttAuthorizer } from '../../../src/access/mqtt-authorizer.js'
import { UserLimits } from '../../../src/access/user-limits.js'
import { createLog, type Logger } from '../../../src/base/log.js'
import type { DeniedAction } from '../../../src/base/metrics.js'
import type { BrokerStream, Peer } from '../../../src/broker/broker.js'
import { createEmbedded, type EmbeddedBroker, type EmbeddedHooks } from '../../../src/broker/embedded/embedded.js'
import { loadConfig } from '../../../src/config/load.js'
import type { ConfigInput } from '../../../src/config/schema.js'
import { MemoryState } from '../../../src/storage/memory-state.js'
import { limits } from './limits.js'
import { somePeer } from './mqtt-session.js'
import { RawSession } from './raw-session.js'

const secret = '0123456789abcdef0123456789abcdef'

export type AccessInput = NonNullable<ConfigInput['access']>

/** Users and keys for tests: alice, bob and carol with the password `right`, and tokens of any claims. */
export class Credentials {
  readonly directory = mkdtempSync(join(tmpdir(), 'mqway-access-'))
  /** `access:` without rules. */
  readonly access: AccessInput

  /** @param options `cost` is that of bcrypt: by default the lowest, and not the 60 ms of a real one */
  constructor({ cost = 4 } = {}) {
    const hash = bcrypt.hashSync('right', cost)
    const htpasswd = join(this.directory, 'users')
    writeFileSync(htpasswd, ['alice', 'bob', 'carol'].map(user => `${user}:${hash}\n`).join(''))
    this.access = { htpasswd, jwt: { secret, clockTolerance: '0ms' } }
  }

  /** @param expires in milliseconds since 1970 */
  token(user: string, claims: Record<string, unknown> = {}, expires = Date.now() + 60_000): Promise<string> {
    return new SignJWT({ ...claims, sub: user, exp: expires / 1000 })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(Buffer.from(secret))
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** An embedded broker with what access/ has for it. */
export interface GuardedBroker extends EmbeddedBroker {
  readonly denied: Record<DeniedAction, number>
  readonly access: Access
}

export interface GuardedOptions {
  readonly access?: AccessInput
  readonly connectionsPerUser?: number
  readonly limits?: Partial<typeof limits> & { data?: string }
  readonly hooks?: EmbeddedHooks
  readonly log?: Logger
}

/** Starts one as gateway.ts does. */
export async function startGuarded(options: GuardedOptions): Promise<GuardedBroker> {
  const directory = mkdtempSync(join(tmpdir(), 'mqway-access-'))
  const file = join(directory, 'mqway.yaml')
  writeFileSync(file, JSON.stringify({ access: options.access }))
  const { config } = loadConfig({ argv: ['--config', file], env: {}, cwd: directory })
  const log = options.log ?? createLog({ level: 'silent', format: 'json' })
  const access = await openAccess(config, directory, log, new MemoryState())
  const { authenticator, rules } = access
  const users = new UserLimits(options.connectionsPerUser ?? 'off')
  const denied = { publish: 0, subscribe: 0, receive: 0 }
  const broker = await createEmbedded({ data: 'none', ...limits, ...options.limits }, log, {
    authorizer: authenticator && new MqttAuthorizer({ authenticator, rules, users }),
    onDenied: action => {
      denied[action]++
    },
    ...options.hooks,
  })
  const closeBroker = broker.close.bind(broker)
  const close = async (): Promise<void> => {
    await closeBroker()
    await access.close()
    rmSync(directory, { recursive: true, force: true })
  }
  return Object.assign(broker, { denied, access, close })
}

/** A client of a guarded broker, with the answer to its CONNECT. */
export interface Guest extends RawSession {
  readonly stream: BrokerStream
  readonly returnCode: number | undefined
  readonly sessionPresent: boolean | undefined
}

let names = 0

/** Connects as a user with the password `right`, or with what is given; without a name when neither is. */
export async function enter(
  broker: Pick<EmbeddedBroker, 'open'>,
  user: string | undefined,
  connect: Partial<IConnectPacket> = {},
  peer: Peer = somePeer,
): Promise<Guest> {
  const stream = await broker.open(peer)
  const session = new RawSession(stream)
  const credentials = user === undefined ? {} : { username: user, password: Buffer.from('right') }
  stream.write(generate({ cmd: 'connect', clientId: `guest-${++names}`, keepalive: 0, ...credentials, ...connect }))
  const packet = await session.next()
  const { returnCode, sessionPresent } = packet?.cmd === 'connack' ? packet : {}
  return Object.assign(session, { stream, returnCode, sessionPresent })
}
