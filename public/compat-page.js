/*
 * What the pages that are clients of other systems have in common: what they show. A classic script, which a page that is
 * opened as a file may load.
 */
// biome-ignore lint/correctness/noUnusedVariables: it is for the scripts after it
const compatPage = (() => {
  /** Messages that are listed. */
  const mostListed = 200
  /** UTF-16 code units of a refusal. */
  const mostShown = 300
  let messages = 0
  /** @type {string | undefined} */
  let said

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
     * @param {string} [label] what else is to be said of it
     */
    add(content, label) {
      byId('count', HTMLElement).textContent = String(++messages)
      byId('empty', HTMLElement).hidden = true
      const line = document.createElement('li')
      const time = document.createElement('time')
      time.textContent = new Date().toLocaleTimeString()
      const text = document.createElement('span')
      text.className = 'content'
      // Whatever direction it has, or turns to, is its own.
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
      if (list.childElementCount > mostListed) list.lastElementChild?.remove()
    },

    /**
     * Says how it stands; where that is nothing new, a screen reader says nothing.
     *
     * @param {string} phase
     * @param {string} text
     */
    show(phase, text) {
      byId('way', HTMLElement).dataset['phase'] = phase
      if (text !== said) byId('state', HTMLElement).textContent = text
      said = text
    },

    /**
     * The sentence of an answer that is a refusal; a login is offered where one helps.
     *
     * @param {number} status
     * @param {string} body
     */
    refusalOf(status, body) {
      if (status === 401 || status === 403) byId('login', HTMLElement).hidden = false
      const unknown = `Something else answers there (status ${status})`
      if (body.trimStart().startsWith('<')) return unknown
      let sentence = body.split('\n', 1)[0] ?? ''
      try {
        const { detail, reason } = JSON.parse(body)
        sentence = String(detail ?? reason ?? '')
      } catch {
        // The gateway says it as text where its clients do not look at it.
      }
      return sentence.replace(/\.$/, '').slice(0, mostShown) || unknown
    },

    /** The header that says who somebody is, where they have said it. */
    authorization() {
      const user = byId('user', HTMLInputElement).value
      const password = byId('password', HTMLInputElement).value
      if (password === '') return undefined
      if (user === '') return `Bearer ${password}`
      const bytes = Array.from(new TextEncoder().encode(`${user}:${password}`), byte => String.fromCharCode(byte))
      return `Basic ${btoa(bytes.join(''))}`
    },

    /**
     * A command for a terminal that publishes.
     *
     * @param {string} topic
     * @param {string} message as a shell reads it
     */
    command(topic, message) {
      return `mosquitto_pub -t '${topic.replaceAll("'", "'\\''")}' -m ${message}`
    },

    /**
     * Where the gateway is, by default: a page that is opened as a file has come from nowhere.
     *
     * @param {string} path
     */
    addressOf(path) {
      return location.protocol === 'file:' ? `http://localhost:8080${path}` : new URL(path, location.href).href
    },
  }
})()
