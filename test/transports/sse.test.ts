import { afterEach, describe, expect, it } from 'vitest'
import { formatId } from '../../src/push/event.js'
import { registerEvents } from '../../src/transports/sse.js'
import { eventually } from '../helpers/wait.js'
import { openSource, openSource2, type TestSource } from './event-source.js'
import { type Rig, type RigOptions, startRig } from './rig.js'

let rig: Rig
const start = async (options: Partial<RigOptions> = {}): Promise<Rig> => {
  rig = await startRig({ register: registerEvents, ...options })
  return rig
}
afterEach(() => rig.close())

const at = (sequence: number): string => formatId(rig.journal.epoch, sequence)
const path = (query: string): string => `/v1/events?${query}`

describe.each(['HTTP/1.1', 'HTTP/2'])('an event stream over %s', version => {
  const open = (query: string, headers: Record<string, string> = {}): Promise<TestSource> =>
    version === 'HTTP/2' ? openSource2(rig.http2(), path(query), headers) : openSource(rig.url + path(query), headers)

  it('says at once that it is open, and under what name', async () => {
    await start()
    const source = await open('topic=a&device=kitchen')
    expect(source.status).toBe(200)
    expect(source.headers['content-type']).toBe('text/event-stream; charset=utf-8')
    expect(source.headers['cache-control']).toBe('no-store')
    expect(source.headers['x-accel-buffering']).toBe('no')
    expect(source.headers['x-content-type-options']).toBe('nosniff')
    await eventually(() => source.of('welcome').length === 1)
    expect(source.of('welcome')).toEqual([
      { connection: expect.stringMatching(/^[\w-]{22}$/), device: 'kitchen', heartbeat: 15 },
    ])
    expect(source.parser.retry).toBe(2000)
    expect(source.parser.comments).toBe(1)
  })

  it('tells what is retained first, then where that ends, then what comes', async () => {
    await start()
    await rig.publish('a/b', 'state', { retain: true })
    await rig.publish('a/c', 'news')
    const source = await open('topic=a/%2B')
    await source.live()
    expect(source.of('message')).toMatchObject([{ topic: 'a/b', payload: 'state', retained: true }])
    expect(source.parser.events.at(-1)?.lastEventId).toBe('')
    expect(source.parser.lastEventId).toBe(at(2))
    await rig.publish('a/d', 'more')
    await source.messages(2)
    expect(source.of('message')[1]).toMatchObject({ id: at(3), topic: 'a/d', payload: 'more' })
    expect(source.parser.lastEventId).toBe(at(3))
  })
})
