import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import bcrypt from 'bcrypt'
import { parse } from 'yaml'
import type { ConfigInput } from '../../src/config/schema.js'
import { type AttackedGateway, startAttackedGateway } from '../helpers/attacked-gateway.js'

const example = fileURLToPath(new URL('../../examples/hardened/mqway.yaml', import.meta.url))
const password = 'a password'
const loopback = { host: '127.0.0.1', port: 0 }

/** The user of the bystander at the hardened gateway, and that of the attackers who have a name. */
export const bystanderLogin = { username: 'bystander', password }
export const attackerLogin = { username: 'attacker', password }

/** A gateway without a configuration, with TLS beside. */
export function startDefaultGateway(): Promise<AttackedGateway> {
  return startAttackedGateway({ https: loopback })
}

/** `examples/hardened`, on loopback, with a development certificate, and a right for the bystander. */
export async function startHardenedGateway(): Promise<AttackedGateway> {
  const { https: _, ...config }: ConfigInput = parse(await readFile(example, 'utf8'))
  const { access } = config
  if (access?.rules === undefined) throw new Error('the example has no rules')
  const directory = await mkdtemp(join(tmpdir(), 'mqway-attack-'))
  const users = [bystanderLogin, attackerLogin].map(({ username }) => `${username}:${bcrypt.hashSync(password, 4)}\n`)
  await writeFile(join(directory, 'users'), users.join(''))
  const all = ['bystander/#']
  const rules = [...access.rules, { to: { user: 'bystander' }, publish: all, subscribe: all }]
  const addresses = { http: loopback, https: loopback, mqtt: { ...config.mqtt, ...loopback } }
  return startAttackedGateway({ ...config, ...addresses, access: { ...access, rules } }, { directory })
}
