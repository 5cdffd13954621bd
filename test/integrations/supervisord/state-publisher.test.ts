import { describe, expect, it } from 'vitest'
import type { ListenerEvent } from '../../../src/integrations/supervisord/event-reader.js'
import { StatePublisher } from '../../../src/integrations/supervisord/state-publisher.js'
import type { Message } from '../../../src/mqtt/message.js'

let serial = 0

function event(state: string, details: string, names = 'processname:cat groupname:pets'): ListenerEvent {
  const eventname = `PROCESS_STATE_${state}`
  const header = new Map([
    ['ver', '3.0'],
    ['server', 'supervisor'],
    ['serial', String(++serial)],
    ['pool', 'mqway'],
    ['poolserial', '7'],
    ['eventname', eventname],
  ])
  return { header, eventname, body: `${names} ${details}` }
}

/** A publisher whose broker acknowledges as the test says. */
class Rig {
  readonly batches: (readonly Message[])[] = []
  readonly warnings: string[] = []
  acknowledges = true
  onDeliver = (): void => {}
  time = Date.UTC(2030, 0, 1)
  readonly publisher = new StatePublisher({
    prefix: 'supervisor',
    deliver: async make => {
      this.onDeliver()
      this.batches.push(make())
      return this.acknowledges
    },
    warn: text => this.warnings.push(text),
    now: () => this.time,
  })

  get last(): readonly Message[] {
    return this.batches.at(-1) ?? []
  }

  get topics(): string[] {
    return this.last.map(({ topic, payload }) => `${payload.length === 0 ? '-' : '+'}${topic}`)
  }
}

describe('the states of processes', () => {
  it('are told with all that supervisord says of them', async () => {
    const rig = new Rig()
    expect(await rig.publisher.publish(event('EXITED', 'from_state:RUNNING expected:0 pid:2766'))).toBe(true)
    const message = rig.last.at(-1)
    expect(message).toMatchObject({ topic: 'supervisor/pets/cat/EXITED', qos: 1, retain: true })
    expect(JSON.parse(String(message?.payload))).toEqual({
      time: '2030-01-01T00:00:00.000Z',
      processname: 'cat',
      groupname: 'pets',
      state: 'EXITED',
      from_state: 'RUNNING',
      expected: false,
      pid: 2766,
      eventname: 'PROCESS_STATE_EXITED',
      serial,
      server: 'supervisor',
      pool: 'mqway',
      poolserial: 7,
    })
  })

  it('are retained one at a time: the first clears all others, each further one that before it', async () => {
    const rig = new Rig()
    await rig.publisher.publish(event('STARTING', 'from_state:STOPPED tries:0'))
    expect(rig.topics).toHaveLength(8)
    expect(new Set(rig.topics).size).toBe(8)
    expect(rig.topics.at(-1)).toBe('+supervisor/pets/cat/STARTING')
    await rig.publisher.publish(event('RUNNING', 'from_state:STARTING pid:1'))
    expect(rig.topics).toEqual(['-supervisor/pets/cat/STARTING', '+supervisor/pets/cat/RUNNING'])
    await rig.publisher.publish(event('RUNNING', 'from_state:STARTING pid:2'))
    expect(rig.topics).toEqual(['+supervisor/pets/cat/RUNNING'])
  })

  it('keep the time of their first coming when they have to come again, and then clear everything', async () => {
    const rig = new Rig()
    await rig.publisher.publish(event('RUNNING', 'pid:1'))
    const exited = event('EXITED', 'from_state:RUNNING expected:0 pid:1')
    rig.acknowledges = false
    expect(await rig.publisher.publish(exited)).toBe(false)
    rig.acknowledges = true
    rig.time += 600_000
    expect(await rig.publisher.publish(exited)).toBe(true)
    expect(rig.topics).toHaveLength(8)
    expect(JSON.parse(String(rig.last.at(-1)?.payload)).time).toBe('2030-01-01T00:00:00.000Z')
  })

  it('are all cleared again at a broker that may be another one, or the same with what it had long ago', async () => {
    const rig = new Rig()
    await rig.publisher.publish(event('STARTING', 'pid:1'))
    rig.publisher.forgetRetained()
    await rig.publisher.publish(event('RUNNING', 'pid:1'))
    expect(rig.topics).toHaveLength(8)
    rig.onDeliver = () => rig.publisher.forgetRetained()
    await rig.publisher.publish(event('STOPPED', 'pid:1'))
    expect(rig.topics).toHaveLength(8)
    rig.onDeliver = () => {}
    await rig.publisher.publish(event('STARTING', 'pid:1'))
    expect(rig.topics).toHaveLength(2)
  })

  it.each([
    ['processname:a/b groupname:+', 'supervisor/%2B/a%2Fb/FATAL'],
    ['processname:#1 groupname:100%', 'supervisor/100%25/%231/FATAL'],
    ['processname:x\uffff groupname:\ufdd0', 'supervisor/%EF%B7%90/x%EF%BF%BF/FATAL'],
    ['processname:😀 groupname:tab\there', 'supervisor/tab%09here/😀/FATAL'],
  ])('of %s are on %s', async (names, topic) => {
    const rig = new Rig()
    await rig.publisher.publish(event('FATAL', 'from_state:BACKOFF', names))
    expect(rig.last.at(-1)?.topic).toBe(topic)
  })

  it.each([
    ['a tick', { header: new Map(), eventname: 'TICK_5', body: 'when:1' }],
    ['a process without a name', event('EXITED', 'pid:1', 'processname: groupname:a')],
    ['a body that was too large', { header: new Map(), eventname: 'PROCESS_STATE_EXITED', body: undefined }],
    ['a name that no topic can hold', event('EXITED', 'pid:1', `processname:${'x'.repeat(2000)} groupname:a`)],
  ])('are not told of %s, with which supervisord is done', async (_, given) => {
    const rig = new Rig()
    expect(await rig.publisher.publish(given)).toBe(true)
    expect(rig.batches).toEqual([])
    expect(rig.warnings).toHaveLength(1)
  })
})
