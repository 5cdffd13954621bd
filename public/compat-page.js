/*
 * The views that the pages for clients of other systems share. A classic script, so that a page opened as a file can load
 * it.
 */
// biome-ignore lint/correctness/noUnusedVariables: later scripts use it
const compatPage = (() => {
  /** Maximum number of listed messages. */
  const maxListed = 200
  /** Maximum UTF-16 code units of a refusal. */
  const maxShown = 300
  let messages = 0
  /** @type {string | undefined} */
  let shown

  /**
   * @template {HTMLElement} T
   * @param {string} id
   * @param {new () => T} type
   * @returns {T}
   */
  function byId(id, type) {
    const found = document.getElementById(id)
    if (!(found instanceof type)) throw new Error(`There is no ${type.name} #${id}`)
    return found
  }

  return {
    byId,

    /**
     * @param {string} content
     * @param {string} [label] an additional label
     */
    add(content, label) {
      byId('count', HTMLElement).textContent = String(++messages)
      byId('empty', HTMLElement).hidden = true
      const line = document.createElement('li')
      const time = document.createElement('time')
      time.textContent = new Date().toLocaleTimeString()
      const text = document.createElement('span')
      text.className = 'content'
      // The text has its own direction.
      text.dir = 'auto'
      text.textContent = content
      line.append(time, text)
      if (label !== undefined) {
        const badge = document.createElement('span')
        badge.className = 'badge'
        badge.textContent = label
        line.append(badge)
      }
      const list = byId('messages', HTMLElement)
      list.prepend(line)
      if (list.childElementCount > maxListed) list.lastElementChild?.remove()
    },

    /**
     * Shows the state. A repeated text is not announced again by screen readers.
     *
     * @param {string} phase
     * @param {string} text
     */
    show(phase, text) {
      byId('header', HTMLElement).dataset['phase'] = phase
      if (text !== shown) byId('state', HTMLElement).textContent = text
      shown = text
    },

    /**
     * The sentence of a refusal; offers a login if that may help.
     *
     * @param {number} status
     * @param {string} body
     */
    refusalOf(status, body) {
      if (status === 401 || status === 403) byId('login', HTMLElement).hidden = false
      const unknown = `The response is not from mqway (status ${status})`
      if (body.trimStart().startsWith('<')) return unknown
      let sentence = body.split('\n', 1)[0] ?? ''
      try {
        const { detail, reason } = JSON.parse(body)
        sentence = String(detail ?? reason ?? '')
      } catch {
        // The body is text.
      }
      return sentence.replace(/\.$/, '').slice(0, maxShown) || unknown
    },

    /** The `Authorization` header; `undefined` without a password. */
    authorization() {
      const user = byId('user', HTMLInputElement).value
      const password = byId('password', HTMLInputElement).value
      if (password === '') return undefined
      if (user === '') return `Bearer ${password}`
      const bytes = Array.from(new TextEncoder().encode(`${user}:${password}`), byte => String.fromCharCode(byte))
      return `Basic ${btoa(bytes.join(''))}`
    },

    /**
     * A shell command that publishes.
     *
     * @param {string} topic
     * @param {string} message as a shell reads it
     */
    command(topic, message) {
      return `mosquitto_pub -t '${topic.replaceAll("'", "'\\''")}' -m ${message}`
    },

    /**
     * The default address of the gateway, also for a page opened as a file.
     *
     * @param {string} path
     */
    addressOf(path) {
      return location.protocol === 'file:' ? `http://localhost:8080${path}` : new URL(path, location.href).href
    },
  }
})()
