/*
 * What the pages that are clients of other systems have in common: what they show. A classic script, which a page that is
 * opened as a file may load.
 */
// biome-ignore lint/correctness/noUnusedVariables: it is for the scripts after it
const compatPage = (() => {
  /** Messages that are listed. */
  const mostListed = 200
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

    /** @param {string} content */
    add(content) {
      byId('count', HTMLElement).textContent = String(++messages)
      byId('empty', HTMLElement).hidden = true
      const line = document.createElement('li')
      const time = document.createElement('time')
      time.textContent = new Date().toLocaleTimeString()
      const text = document.createElement('span')
      text.className = 'content'
      text.textContent = content
      line.append(time, text)
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
