/** The page for plain WebSockets: one topic for messages from this browser, one for the answers. */

import { byId, copyable, element } from './dom.js'
import { animateMessage } from './message-animation.js'
import { draft } from './publish-view.js'
import { messageOf } from './push-message.js'
import { PushPage } from './push-page.js'
import { hostOption, shellQuote } from './terminal-commands.js'

const form = byId('send-form', HTMLFormElement)
const text = byId('send-payload', HTMLTextAreaElement)
const outcome = byId('send-outcome', HTMLElement)

/** @type {{ readonly in: string, readonly out: string } | undefined} */
let own

function renderCommands() {
  const host = hostOption(location.hostname)
  const { topic, payload } = draft()
  const out = own?.out ?? 'socket/…/out'
  const answer = `mosquitto_pub${host} -t ${shellQuote(out)} -m ${shellQuote('an answer for this browser alone')}`
  const listen = `mosquitto_sub${host} -v -t ${shellQuote('socket/+/in')}`
  const publish = `mosquitto_pub${host} -t ${shellQuote(topic)} -m ${shellQuote(payload)}`
  byId('terminal-panel', HTMLElement).replaceChildren(
    element('div', 'snippet', element('h3', '', 'Receive messages from browsers'), copyable(listen, 'Listen')),
    element('div', 'snippet', element('h3', '', 'Publish to everybody'), copyable(publish, 'Publish')),
  )
  byId('answer-command', HTMLElement).replaceChildren(copyable(answer, 'Answer this browser'))
  byId('first-command', HTMLElement).replaceChildren(copyable(answer, 'Answer this browser'))
  byId('own-in', HTMLElement).textContent = own?.in ?? 'socket/…/in'
  byId('own-out', HTMLElement).textContent = out
}

const page = new PushPage({
  transport: 'socket',
  path: '/v1/socket',
  topics: ['/news/+/sport'],
  onEvent: ({ topic }) => (topic === own?.out ? { hues: [1], label: 'for this browser' } : {}),
  onState(state) {
    if (state.phase === 'open') own = state.topics
    renderCommands()
  },
  onDraft: renderCommands,
})

form.addEventListener('submit', async event => {
  event.preventDefault()
  const payload = text.value
  try {
    outcome.dataset['state'] = 'pending'
    outcome.textContent = 'Sending …'
    await page.send(payload)
    animateMessage('out')
    const sent = {
      id: '',
      topic: own?.in ?? '',
      time: new Date().toISOString(),
      payload,
      qos: /** @type {const} */ (1),
    }
    page.show({ ...messageOf(sent), hues: [2], label: 'sent' })
    outcome.dataset['state'] = 'done'
    outcome.textContent = 'Sent, and accepted by the gateway.'
  } catch (error) {
    outcome.dataset['state'] = 'failed'
    const reason = error instanceof Error && 'reason' in error ? error.reason : ''
    outcome.textContent =
      reason === 'no-socket' ? 'Not sent: there is no connection at the moment.' : `Not sent: ${String(error)}`
  }
})
form.addEventListener('keydown', event => {
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return
  event.preventDefault()
  form.requestSubmit()
})
renderCommands()
