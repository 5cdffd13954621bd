/**
 * What one tab remembers over a reload. A password is not among it.
 *
 * @typedef {object} Remembered
 * @property {string} path
 * @property {string} userName
 * @property {{ filter: string, qos: 0 | 1 | 2 }[]} subscriptions
 */

const KEY = 'mqway'
const CLIENT_ID_KEY = 'mqway.client-id'

/** @type {Remembered} */
const firstLoad = { path: '/mqtt', userName: '', subscriptions: [{ filter: '/news/+/sport', qos: 1 }] }

/** @returns {Remembered} */
export function remembered() {
  try {
    return { ...firstLoad, ...JSON.parse(sessionStorage.getItem(KEY) ?? '{}') }
  } catch {
    return firstLoad
  }
}

/** @param {Partial<Remembered>} change */
export function remember(change) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify({ ...remembered(), ...change }))
  } catch {
    // Storage may be full or forbidden: then the tab forgets, and nothing else.
  }
}

/**
 * The client id of this tab. A browser copies the tab's memory when the tab is duplicated, and two clients with one id
 * would throw each other off the broker for ever: so the id is held by a lock for as long as the page lives.
 *
 * @returns {Promise<string>} at most 23 characters, all that MQTT 3.1 allows
 */
export async function claimClientId() {
  const kept = sessionStorage.getItem(CLIENT_ID_KEY)
  const clientId = kept !== null && (await lock(kept)) ? kept : newClientId()
  if (clientId !== kept) await lock(clientId)
  sessionStorage.setItem(CLIENT_ID_KEY, clientId)
  return clientId
}

function newClientId() {
  const bytes = crypto.getRandomValues(new Uint8Array(5))
  return `mqway-${Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('')}`
}

/**
 * @param {string} name
 * @returns {Promise<boolean>} whether this page has it now. Locks exist on https and on localhost only; without them: true
 */
function lock(name) {
  if (navigator.locks === undefined) return Promise.resolve(true)
  return new Promise(resolve => {
    navigator.locks.request(`mqway:${name}`, { ifAvailable: true }, held => {
      resolve(held !== null)
      return held === null ? undefined : new Promise(() => {})
    })
  })
}
