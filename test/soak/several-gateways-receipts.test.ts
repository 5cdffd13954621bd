import { expect, it, onTestFinished } from 'vitest'
import { type Listen, pushTransports } from '../helpers/event-clients.js'
import type { ServingProgram } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { startSharedGateways } from '../helpers/shared-gateways.js'
import { eventually } from '../helpers/wait.js'

/** Only a longer run has faults and deadlines that are apart. */
const seconds = Number(process.env['SOAK_SECONDS'] ?? 0)
const after = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

/** What was confirmed of one request. */
interface Requested {
  /** Devices whose receipt was confirmed before the deadline, and whose receipt may have been stored. */
  readonly confirmed: Set<string>
  readonly uncertain: Set<string>
}

describeWith(['redis-server', 'mosquitto'], `receipts of three gateways with faults for ${seconds} s`, () => {
  it.runIf(seconds > 0)(
    'each have their message, and each deadline its own',
    { timeout: seconds * 1000 + 90_000 },
    async () => {
      const shared = await startSharedGateways()
      const watched = await shared.start()
      const others = [await shared.start(), await shared.start()]
      const listen = pushTransports['an event stream'] as Listen
      const client = await listen({ http: watched.url('http'), https: '' }, { topics: ['receipts/#'] })
      onTestFinished(() => client.close())
      const all = () => [watched, ...others]
      const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T
      const ask = async (path: string, content: unknown): Promise<{ code: number; id?: string }> => {
        const init = { method: 'POST', body: JSON.stringify(content), signal: AbortSignal.timeout(15_000) }
        try {
          const response = await fetch(`${pick(all()).url('http')}${path}`, init)
          return { code: response.status, ...((await response.json()) as object) }
        } catch {
          return { code: 0 }
        }
      }
      const requests = new Map<string, Requested>()
      const within = '20s'
      let isOver = false
      let count = 0
      const publishOne = async (): Promise<void> => {
        const receipt = { from: ['a', 'b', 'c'], within }
        const { code, id = '' } = await ask('/v1/publish', { topic: 'jobs/1', payload: `${count++}`, receipt })
        if (code !== 201) return
        const requested: Requested = { confirmed: new Set(), uncertain: new Set() }
        requests.set(id, requested)
        for (const device of ['a', 'b']) {
          if (Math.random() < 0.3) continue
          const answer = await ask(`/v1/receipts?device=${device}`, { id, status: 'processed' })
          const isSure = answer.code === 201 || answer.code === 200
          ;(isSure ? requested.confirmed : requested.uncertain).add(device)
        }
      }
      const working = Promise.all(
        Array.from({ length: 4 }, async () => {
          while (!isOver) {
            await publishOne()
            await after(20)
          }
        }),
      )
      const stop = async (program: ServingProgram): Promise<void> => {
        program.child.kill('SIGSTOP')
        await after(4000)
        program.child.kill('SIGCONT')
      }
      const replace = async (index: number): Promise<void> => {
        await others[index]?.stop(pick(['SIGKILL', 'SIGTERM']))
        others[index] = await shared.start()
      }
      const faults: (() => Promise<void>)[] = [
        () => stop(watched),
        () => replace(0),
        () => replace(1),
        () => stop(others[0] ?? watched),
        async () => {
          shared.redis.pause()
          await after(Math.random() * 6000)
          shared.redis.resume()
        },
        async () => {
          await shared.redis.kill()
          await after(Math.random() * 4000)
          await shared.redis.start()
        },
      ]
      const end = performance.now() + seconds * 1000
      do {
        await pick(faults)()
        await after(Math.random() * 2000)
      } while (performance.now() < end)
      isOver = true
      await working
      const told = () => client.events.map(({ payload }) => JSON.parse(payload.toString()))
      await eventually(() => {
        const missed = new Set(told().flatMap(({ type, id }) => (type === 'missed' ? [id] : [])))
        return [...requests.keys()].every(id => missed.has(id))
      })
      const messages = told()
      const texts = messages.map(message => JSON.stringify(message))
      expect(texts.filter((text, index) => texts.indexOf(text) !== index)).toEqual([])
      for (const [id, { confirmed, uncertain }] of requests) {
        const about = messages.filter(message => message.id === id)
        const devices: string[] = about.flatMap(({ type, devices: list }) => (type === 'missed' ? list : []))
        const answered = about.flatMap(({ type, device }) => (type === 'receipt' ? [device] : []))
        // Those that were answered after the deadline are among both.
        expect(about.filter(({ type }) => type === 'missed')).toHaveLength(1)
        expect(devices).toContain('c')
        for (const device of confirmed) expect(answered).toContain(device)
        for (const device of ['a', 'b']) {
          if (!confirmed.has(device) && !uncertain.has(device)) expect(devices).toContain(device)
          if (confirmed.has(device)) expect(devices).not.toContain(device)
        }
      }
      expect(requests.size).toBeGreaterThan(0)
    },
  )
})
