import { type Alert, memberOf, valueText } from './alert.js'

/** Default subject and text, for rules without their own. */
export interface AlertFormat {
  readonly subject: string
  readonly text: string
}

/** The default format of an alert; for processes of supervisord as crashmail's. */
export function formatAlert(alert: Alert): AlertFormat {
  return formatBroker(alert) ?? formatProcess(alert) ?? formatReceipt(alert) ?? formatMessage(alert)
}

function formatBroker({ topic, json, text }: Alert): AlertFormat | undefined {
  const event = textAt(json, 'event')
  if (topic !== '' || event === undefined) return undefined
  return { subject: event === 'broker-away' ? 'The broker is away' : 'The broker is back', text }
}

function formatProcess({ json, time }: Alert): AlertFormat | undefined {
  const name = textAt(json, 'processname')
  const state = textAt(json, 'state')
  if (name === undefined || state === undefined || !textAt(json, 'eventname')?.startsWith('PROCESS_STATE_'))
    return undefined
  const at = timeAt(json, 'time') ?? formatTime(time)
  const which = `Process ${name} in group ${textAt(json, 'groupname')}`
  const pid = memberOf(json, ['pid'])
  const details = `${pid === undefined ? '' : ` (pid ${valueText(pid)})`} from state ${textAt(json, 'from_state')}`
  if (state === 'EXITED' && memberOf(json, ['expected']) === false) {
    return { subject: `${name} crashed at ${at}`, text: `${which} exited unexpectedly${details}` }
  }
  if (state === 'FATAL') {
    return { subject: `${name} could not be started at ${at}`, text: `${which} could not be started${details}` }
  }
  return { subject: `${name} is ${state} at ${at}`, text: `${which} is ${state}${details}` }
}

function formatReceipt({ topic, json }: Alert): AlertFormat | undefined {
  const devices = memberOf(json, ['devices'])
  if (!topic.startsWith('receipts/') || memberOf(json, ['type']) !== 'missed' || !Array.isArray(devices))
    return undefined
  const about = textAt(json, 'topic') ?? topic
  const text = [
    `No receipt for the message ${textAt(json, 'id')} on ${about} came by ${timeAt(json, 'deadline')} from:`,
    '',
    ...devices.map(device => `  ${valueText(device)}`),
  ]
  const count = devices.length === 1 ? '1 receipt is' : `${devices.length} receipts are`
  return { subject: `${count} missing for ${about}`, text: text.join('\n') }
}

function formatMessage({ topic, text }: Alert): AlertFormat {
  return { subject: `Message on ${topic}`, text }
}

function textAt(json: unknown, name: string): string | undefined {
  const value = memberOf(json, [name])
  return typeof value === 'string' ? value : undefined
}

function timeAt(json: unknown, name: string): string | undefined {
  const time = Date.parse(textAt(json, name) ?? '')
  return Number.isNaN(time) ? undefined : formatTime(time)
}

/** A time for people: `2026-11-21 14:00:00 UTC`. */
export function formatTime(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
