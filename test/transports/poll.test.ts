import { afterEach, describe, expect, it } from 'vitest'
import { formatId } from '../../src/push/event.js'
import { registerPoll } from '../../src/transports/poll.js'
import { eventually } from '../helpers/wait.js'
import { type Rig, type RigOptions, startRig } from './rig.js'

let rig: Rig
const start = async (options: Partial<RigOptions> = {}): Promise<Rig> => {
  rig = await startRig({ register: registerPoll, ...options })
  return rig
}
afterEach(() => rig.close())

interface PollBody {
  events: { id: string; topic: string; payload?: string; retained?: boolean; json?: unknown }[]
  cursor: string
  gap: { reason: string; cursor: string; resumes: string } | null
  device: string
}

const at = (sequence: number): string => formatId(rig.journal.epoch, sequence)
const ask = (query: string, init: RequestInit = {}): Promise<Response> => fetch(`${rig.url}/v1/poll?${query}`, init)
const poll = async (query: string): Promise<PollBody> => {
  const answer = await ask(query)
  expect(answer.status).toBe(200)
  return (await answer.json()) as PollBody
}
const payloads = ({ events }: PollBody) => events.map(({ payload }) => payload)

describe('a long-poll', () => {
  it('is answered with what is retained, and then with what comes', async () => {
    await start()
    await rig.publish('a/b', 'state', { retain: true })
    const first = await poll('topic=a/%2B')
    expect(first.events).toMatchObject([{ topic: 'a/b', payload: 'state', retained: true }])
    expect(first).toMatchObject({ cursor: at(1), gap: null })
    const waiting = poll(`topic=a/%2B&cursor=${first.cursor}`)
    await eventually(() => rig.hub.counters.subscribers === 1 && rig.hub.counters.catchingUp === 0)
    await Promise.all([rig.publish('a/c', '1'), rig.publish('x', 'no'), rig.publish('a/d', '2')])
    const second = await waiting
    expect(payloads(second)).toEqual(['1', '2'])
    expect(second.cursor).toBe(at(4))
  })

  it('is answered at once with what was missed', async () => {
    await start()
    const { cursor } = await poll('topic=a&timeout=0')
    await rig.publish('a', '1')
    await rig.publish('a', '2')
    expect(payloads(await poll(`topic=a&cursor=${cursor}`))).toEqual(['1', '2'])
  })

  it('is answered with no events when its time is up', async () => {
    await start()
    expect(await poll('topic=a&timeout=1')).toMatchObject({ events: [], cursor: at(0), gap: null })
  })
})
