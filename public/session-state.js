/**
 * The state of one tab that survives a reload, without passwords.
 *
 * @typedef {object} SessionState
 * @property {string} path
 * @property {string} userName
 * @property {{ filter: string, qos: 0 | 1 | 2 }[]} subscriptions
 */

const KEY = 'mqway'
const CLIENT_ID_KEY = 'mqway.client-id'

/** @type {SessionState} */
const firstLoad = { path: '/mqtt', userName: '', subscriptions: [{ filter: '/news/+/sport', qos: 1 }] }

/** @returns {SessionState} */
export function loadSession() {
  try {
    return { ...firstLoad, ...JSON.parse(sessionStorage.getItem(KEY) ?? '{}') }
  } catch {
    return firstLoad
  }
}

/** @param {Partial<SessionState>} change */
export function saveSession(change) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify({ ...loadSession(), ...change }))
  } catch {
    // Storage may be full or forbidden: then the state is lost at a reload.
  }
}

/**
 * The client id of this tab. A duplicated tab has a copy of the session storage, and two clients with one id would end each
 * other's connections for ever: so the page holds a lock on the id while it is open.
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
 * @returns {Promise<boolean>} whether this page has the lock. Locks exist on https and on localhost only; without them: true
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
