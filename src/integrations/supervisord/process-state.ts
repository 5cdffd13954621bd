import type { Message } from '../../mqtt/message.js'
import { type ListenerEvent, parsePairs } from './event-reader.js'

/** A new state of a process. */
export interface ProcessState {
  readonly group: string
  readonly process: string
  /** `RUNNING`, `EXITED`, `FATAL`, … */
  readonly state: string
  /** All fields of supervisord's event, with its names and in its order. */
  readonly details: Readonly<Record<string, unknown>>
}

/** Every state of a process (supervisor's `states` module). */
export const processStates = [
  'STARTING',
  'RUNNING',
  'BACKOFF',
  'STOPPING',
  'STOPPED',
  'EXITED',
  'FATAL',
  'UNKNOWN',
] as const

/** Whether an event is one of a process's state. */
export function isProcessState(eventname: string): boolean {
  return stateOf(eventname) !== undefined
}

function stateOf(eventname: string): string | undefined {
  return /^PROCESS_STATE_([A-Z]{1,40})$/.exec(eventname)?.[1]
}

/** Reads a `PROCESS_STATE_…` event; `undefined` if it names no process. */
export function readProcessState({ header, eventname, body }: ListenerEvent): ProcessState | undefined {
  const state = stateOf(eventname)
  const fields = parsePairs(body ?? '')
  const process = fields.get('processname') ?? ''
  const group = fields.get('groupname') ?? ''
  if (state === undefined || process === '' || group === '') return undefined
  const details = {
    processname: process,
    groupname: group,
    state,
    from_state: fields.get('from_state'),
    expected: flag(fields.get('expected')),
    pid: number(fields.get('pid')),
    tries: number(fields.get('tries')),
    eventname,
    serial: number(header.get('serial')),
    server: header.get('server'),
    pool: header.get('pool'),
    poolserial: number(header.get('poolserial')),
  }
  return { group, process, state, details }
}

function number(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** supervisord writes 0 and 1. */
function flag(text: string | undefined): boolean | undefined {
  return text === undefined ? undefined : text !== '0'
}

/** The topic of a process's state. */
export function stateTopic(prefix: string, { group, process }: ProcessState, state: string): string {
  return [prefix, level(group), level(process), state].join('/')
}

/**
 * A name as one level of a topic: `%`, `/`, `+`, `#`, and characters for which a broker may end the connection (`hasNoControls`), are
 * percent-encoded. Otherwise supervisord would send the event again for ever, and none of the later ones.
 */
function level(name: string): string {
  return name.replace(/[%/+#\p{Cc}\p{Noncharacter_Code_Point}]/gu, character => encodeURIComponent(character))
}

/**
 * The messages for a new state of a process: empty retained messages for each state in `cleared`, and the new one last.
 *
 * @param time of the change, in milliseconds since 1970
 */
export function stateMessages(
  prefix: string,
  change: ProcessState,
  time: number,
  cleared: readonly string[],
): readonly Message[] {
  const own = { time: new Date(time).toISOString(), ...change.details }
  const message = (state: string, payload: Buffer): Message => {
    return { topic: stateTopic(prefix, change, state), payload, qos: 1, retain: true }
  }
  return [
    ...cleared.map(state => message(state, Buffer.alloc(0))),
    message(change.state, Buffer.from(JSON.stringify(own))),
  ]
}
