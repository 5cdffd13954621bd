import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { AttackedGateway } from '../helpers/attacked-gateway.js'
import { type Attackers, startAttackers } from '../helpers/attackers.js'
import { type BystanderOptions, expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { attackOnce, type CampaignOptions, formatRow, type Row, tableHead } from './campaign.js'
import { attackerLogin, bystanderLogin, startDefaultGateway, startHardenedGateway } from './gateways.js'
import { scenarios } from './scenarios/index.js'
import { boundSince } from './scheduling.js'

/** Seconds of attack on each gateway; `npm run attack` sets it. Left out: every scenario once, half a second. */
const seconds = Number(process.env['ATTACK_SECONDS'] ?? 0)
const only = process.env['ATTACK_ONLY']?.split(',')
const together = 10
/** Milliseconds until memory is measured. */
const rest = 60_000
const chosen = scenarios.filter(({ name }) => only?.includes(name) ?? true)
const basic = ({ username, password }: typeof bystanderLogin) => ({
  Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
})

const gateways = [
  { name: 'a default gateway', start: startDefaultGateway, own: {}, login: undefined },
  {
    name: 'a hardened gateway',
    start: startHardenedGateway,
    own: { ...bystanderLogin, headers: basic(bystanderLogin) },
    login: attackerLogin,
  },
]

/** The table is for whoever waits for `npm run attack`. */
function print(line: string): void {
  if (seconds > 0) process.stdout.write(`${line}\n`)
}

/** Each scenario alone for a third of the time, then groups of ten, others each time. */
async function attack(campaign: Omit<CampaignOptions, 'together' | 'milliseconds'>): Promise<void> {
  if (seconds === 0) {
    await attackOnce({ ...campaign, together, milliseconds: 500 })
    return
  }
  const end = Date.now() + seconds * 1000
  const alone = Math.min(5000, Math.round((seconds * 1000) / 3 / chosen.length))
  await attackOnce({ ...campaign, together: 1, milliseconds: alone })
  for (let pass = 0; Date.now() < end && campaign.gateway.isAlive(); pass++) {
    const shift = (pass * 3) % chosen.length
    const group = [...chosen.slice(shift), ...chosen.slice(0, shift)].slice(0, together)
    await attackOnce({ ...campaign, scenarios: group, together, milliseconds: 10_000 })
  }
}

/**
 * Runs every attack once and waits for a minute. A process keeps some of the memory that it once had: V8's heap, the arenas of the C
 * library, caches up to their bounds. If it has more after further attacks, it loses some with each.
 */
async function warmUp(
  campaign: Omit<CampaignOptions, 'together' | 'milliseconds' | 'bystander'>,
  options: BystanderOptions,
): Promise<void> {
  const bystander = await startBystander(options)
  await attackOnce({ ...campaign, bystander, together, milliseconds: 5000 })
  await bystander.stop()
  await wait(rest)
}

async function figuresOf(gateway: AttackedGateway): Promise<{ memory: number; descriptors: number }> {
  return { memory: await gateway.memory(), descriptors: await gateway.descriptors() }
}

let attackers: Attackers
beforeAll(async () => {
  attackers = await startAttackers(together)
})
afterAll(() => attackers?.close())

describe.each(gateways)('every attack on $name, ten at a time', ({ name, start, own, login }) => {
  it(
    'leaves it alive and its other clients undisturbed, and takes no memory and no descriptors for good',
    async () => {
      const gateway = await start()
      onTestFinished(() => gateway.close())
      const options: BystanderOptions = { mqttPort: gateway.mqttPort, httpUrl: gateway.http, patience: 90_000, ...own }
      const fresh = await figuresOf(gateway)
      if (seconds > 0) await warmUp({ gateway, attackers, scenarios: chosen, ...(login && { login }) }, options)
      const before = await figuresOf(gateway)
      const began = await gateway.scheduling()
      const bystander = await startBystander(options)
      print(`\n${name}\n\n${tableHead}`)
      const onRow = (row: Row): void => print(formatRow(row))
      await attack({ gateway, attackers, bystander, scenarios: chosen, onRow, ...(login && { login }) })
      expect(gateway.isAlive(), gateway.running.errors().slice(-2000)).toBe(true)
      const report = await bystander.stop()
      const bound = await boundSince(gateway, began)
      print(`\nbound of p99 beside the control’s: ${Math.round(bound)} ms\n${JSON.stringify(report)}`)
      if (seconds > 0) await wait(rest)
      const after = await figuresOf(gateway)
      print(
        `at the start, after a first pass, and a minute after the attack: ${JSON.stringify({ fresh, before, after })}`,
      )
      // The short form shows that nothing is lost. How long others wait while everything is stored on one disk is for the long form.
      for (const kind of ['mqtt', 'http', 'push'] as const) {
        expect({ kind, lost: report[kind].lost, repeated: report[kind].repeated }).toEqual({
          kind,
          lost: 0,
          repeated: 0,
        })
      }
      if (seconds === 0) return
      expectUndisturbed(report, bound)
      expect(after.memory).toBeLessThan(1.2 * before.memory)
      expect(after.descriptors).toBeLessThanOrEqual(before.descriptors + 10)
    },
    (2 * seconds + 400) * 1000,
  )
})
