/** Brings the parts together: connection, subscriptions and messages on one side, the views on the other. */

import { Connection } from './connection.js'
import { renderConnection, showParcel, wireConnection } from './connection-view.js'
import { byId, copyable, oncePerFrame } from './dom.js'
import { Echoes } from './echoes.js'
import { wireLog } from './message-log.js'
import { MessageStore } from './message-store.js'
import { describePayload } from './payload.js'
import { draft, wirePublish } from './publish-view.js'
import { Subscriptions } from './subscriptions.js'
import { renderSubscriptions, wireSubscriptions } from './subscriptions-view.js'
import { claimClientId, remember, remembered } from './tab-memory.js'
import { publishCommand } from './terminal-commands.js'
import { renderTerminal } from './terminal-view.js'
import { neighbourhood } from './topic-filter.js'

const memory = remembered()
const clientId = await claimClientId()
const store = new MessageStore()
const echoes = new Echoes()
const drawMessages = wireLog(store)

const connection = new Connection({
  onState(state) {
    renderConnection(state)
    if (state.phase === 'connected') subscriptions.restore()
    else subscriptions.suspend()
  },
  onMessage({ bytes, ...message }) {
    const hues = subscriptions.count(message.topic)
    echoes.arrived(message.topic, bytes)
    store.add({ ...message, time: new Date(), payload: describePayload(bytes), hues })
    showParcel('in')
    drawMessages()
  },
})

const drawSubscriptions = oncePerFrame(() =>
  renderSubscriptions(subscriptions.list, async filter => {
    await subscriptions.remove(filter)
    rememberSubscriptions()
  }),
)
const subscriptions = new Subscriptions(connection, drawSubscriptions)

function rememberSubscriptions() {
  remember({ subscriptions: subscriptions.list.map(({ filter, qos }) => ({ filter, qos })) })
}

/** @param {{ path: string, userName: string, password: string }} answers */
function connect({ path, userName, password }) {
  remember({ path, userName })
  connection.start({ url: tunnelUrl(path), path, clientId, userName, password })
}

/** @param {string} path */
function tunnelUrl(path) {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${path}`
}

function renderCommands() {
  const { topic, payload } = draft()
  const { path } = remembered()
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
wireConnection({ ...memory, password }, clientId, {
  onConnect(answers) {
    password = answers.password
    connect(answers)
    renderCommands()
  },
  onTryNow: () => (connection.stopped ? connect({ ...remembered(), password }) : connection.tryNow()),
  onDisconnect: () => connection.stop(),
})
wireSubscriptions({
  onSubscribe(filter, qos) {
    subscriptions.add(filter, qos)
    rememberSubscriptions()
  },
})
wirePublish({
  async publish(outgoing) {
    const { topic, payload } = outgoing
    const published = connection.publish(outgoing)
    const seen = subscriptions.covers(topic) ? echoes.await(topic, payload) : Promise.resolve(false)
    showParcel('out')
    await published
    return { seen }
  },
  onDraft: oncePerFrame(renderCommands),
})

for (const { filter, qos } of memory.subscriptions) subscriptions.add(filter, qos)
renderCommands()
connect({ ...memory, password })
