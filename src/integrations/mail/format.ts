import { type Alert, memberOf, shown } from './alert.js'

/** What is said where a rule does not say it. */
export interface AlertFormat {
  readonly subject: string
  readonly text: string
}

/** What fits an occurrence: as crashmail says it for a process of supervisord, and in general. */
export function wordingOf(occurrence: Alert): AlertFormat {
  return (
    brokerWording(occurrence) ?? processWording(occurrence) ?? receiptWording(occurrence) ?? messageWording(occurrence)
  )
}

function brokerWording({ topic, json, text }: Alert): AlertFormat | undefined {
  const event = textAt(json, 'event')
  if (topic !== '' || event === undefined) return undefined
  return { subject: event === 'broker-away' ? 'The broker is away' : 'The broker is back', text }
}

function processWording({ json, time }: Alert): AlertFormat | undefined {
  const name = textAt(json, 'processname')
  const state = textAt(json, 'state')
  if (name === undefined || state === undefined || !textAt(json, 'eventname')?.startsWith('PROCESS_STATE_'))
    return undefined
  const at = timeAt(json, 'time') ?? whenOf(time)
  const which = `Process ${name} in group ${textAt(json, 'groupname')}`
  const pid = memberOf(json, ['pid'])
  const details = `${pid === undefined ? '' : ` (pid ${shown(pid)})`} from state ${textAt(json, 'from_state')}`
  if (state === 'EXITED' && memberOf(json, ['expected']) === false) {
    return { subject: `${name} crashed at ${at}`, text: `${which} exited unexpectedly${details}` }
  }
  if (state === 'FATAL') {
    return { subject: `${name} could not be started at ${at}`, text: `${which} could not be started${details}` }
  }
  return { subject: `${name} is ${state} at ${at}`, text: `${which} is ${state}${details}` }
}

function receiptWording({ topic, json }: Alert): AlertFormat | undefined {
  const devices = memberOf(json, ['devices'])
  if (!topic.startsWith('receipts/') || memberOf(json, ['type']) !== 'missed' || !Array.isArray(devices))
    return undefined
  const about = textAt(json, 'topic') ?? topic
  const text = [
    `No receipt for the message ${textAt(json, 'id')} on ${about} came by ${timeAt(json, 'deadline')} from:`,
    '',
    ...devices.map(device => `  ${shown(device)}`),
  ]
  const count = devices.length === 1 ? '1 receipt is' : `${devices.length} receipts are`
  return { subject: `${count} missing for ${about}`, text: text.join('\n') }
}

function messageWording({ topic, text }: Alert): AlertFormat {
  return { subject: `Message on ${topic}`, text }
}

function textAt(json: unknown, name: string): string | undefined {
  const value = memberOf(json, [name])
  return typeof value === 'string' ? value : undefined
}

function timeAt(json: unknown, name: string): string | undefined {
  const time = Date.parse(textAt(json, name) ?? '')
  return Number.isNaN(time) ? undefined : whenOf(time)
}

/** A time as a person reads it: `2026-11-21 14:00:00 UTC`. */
export function whenOf(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
