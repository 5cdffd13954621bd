/** The MQTT page: connects the connection, subscriptions and messages with their views. */

import { Connection } from './connection.js'
import { animateMessage, renderConnection, wireConnection } from './connection-view.js'
import { byId, copyable, oncePerFrame } from './dom.js'
import { wireLog } from './message-log.js'
import { MessageStore } from './message-store.js'
import { describePayload } from './payload.js'
import { describeProperties } from './properties.js'
import { PublishConfirmations } from './publish-confirmations.js'
import { draft, enableProperties, wirePublish } from './publish-view.js'
import { claimClientId, loadSession, saveSession } from './session-state.js'
import { Subscriptions } from './subscriptions.js'
import { renderSubscriptions, wireSubscriptions } from './subscriptions-view.js'
import { publishCommand } from './terminal-commands.js'
import { renderTerminal } from './terminal-view.js'
import { neighbourhood } from './topic-filter.js'

const session = loadSession()
const clientId = await claimClientId()
const store = new MessageStore()
const confirmations = new PublishConfirmations()
const drawMessages = wireLog(store)

const connection = new Connection({
  onState(state) {
    renderConnection(state)
    if (state.phase === 'connected') enableProperties(state.hasProperties)
    if (state.phase === 'connected') subscriptions.restore()
    else subscriptions.suspend()
  },
  onMessage({ bytes, properties, ...message }) {
    const hues = subscriptions.count(message.topic)
    confirmations.arrived(message.topic, bytes)
    store.add({
      ...message,
      time: new Date(),
      payload: describePayload(bytes),
      properties: describeProperties(properties),
      hues,
    })
    animateMessage('in')
    drawMessages()
  },
})

const drawSubscriptions = oncePerFrame(() =>
  renderSubscriptions(subscriptions.list, async filter => {
    await subscriptions.remove(filter)
    saveSubscriptions()
  }),
)
const subscriptions = new Subscriptions(connection, drawSubscriptions)

function saveSubscriptions() {
  saveSession({ subscriptions: subscriptions.list.map(({ filter, qos }) => ({ filter, qos })) })
}

/** @param {{ path: string, userName: string, password: string }} answers */
function connect({ path, userName, password }) {
  saveSession({ path, userName })
  connection.start({ url: tunnelUrl(path), path, clientId, userName, password })
}

/** @param {string} path */
function tunnelUrl(path) {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${path}`
}

function renderCommands() {
  const { topic, payload } = draft()
  const { path } = loadSession()
  const place = {
    hostname: location.hostname,
    url: tunnelUrl(path),
    path,
    topic,
    payload,
    filter: neighbourhood(topic),
  }
  renderTerminal(place)
  byId('first-command', HTMLElement).replaceChildren(copyable(publishCommand(place), 'Publish'))
}

/** @param {unknown} error */
function showNotice(error) {
  const notice = byId('notice', HTMLElement)
  notice.hidden = false
  notice.textContent = `Something went wrong in this page: ${error instanceof Error ? error.message : String(error)}`
}

window.addEventListener('error', ({ error, message }) => showNotice(error ?? message))
window.addEventListener('unhandledrejection', ({ reason }) => showNotice(reason))
window.addEventListener('online', () => connection.tryNow())

let password = ''
wireConnection({ ...session, password }, clientId, {
  onConnect(answers) {
    password = answers.password
    connect(answers)
    renderCommands()
  },
  onTryNow: () => (connection.stopped ? connect({ ...loadSession(), password }) : connection.tryNow()),
  onDisconnect: () => connection.stop(),
})
wireSubscriptions({
  onSubscribe(filter, qos) {
    subscriptions.add(filter, qos)
    saveSubscriptions()
  },
})
wirePublish({
  async publish(outgoing) {
    const { topic, payload } = outgoing
    const published = connection.publish(outgoing)
    const seen = subscriptions.covers(topic) ? confirmations.await(topic, payload) : Promise.resolve(false)
    animateMessage('out')
    const { isPermission, hasSubscribers } = await published
    return { seen: isPermission ? Promise.resolve(true) : seen, hasSubscribers }
  },
  onDraft: oncePerFrame(renderCommands),
})

for (const { filter, qos } of session.subscriptions) subscriptions.add(filter, qos)
renderCommands()
connect({ ...session, password })
