/*
 * RRR's push as its own page does it: one XMLHttpRequest after the other, each given up after ten seconds. A classic
 * script, which a page that is opened as a file may load.
 */
;(() => {
  /** How long a request may take; the gateway answers after five seconds, in milliseconds. */
  const giveUpAfter = 10_000
  /** How long to wait after a request that failed, in milliseconds. */
  const pause = 1_000
  /** Messages that are listed. */
  const mostListed = 200

  const query = new URLSearchParams(location.search)
  const way = byId('way', HTMLElement)
  const urlField = byId('url', HTMLInputElement)
  const handleField = byId('handle', HTMLInputElement)
  const list = byId('messages', HTMLElement)
  let connections = 0
  let messages = 0
  /** @type {XMLHttpRequest | undefined} */
  let asking
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let waiting

  const here = location.protocol === 'file:' ? 'http://localhost:8080/rrr/' : new URL('/rrr/', location.href).href
  urlField.value = query.get('url') ?? here
  handleField.value = query.get('handle') ?? '1'
  byId('form', HTMLFormElement).addEventListener('submit', event => {
    event.preventDefault()
    listen()
  })
  listen()

  function listen() {
    const topic = `push/${handleField.value}`
    byId('topic', HTMLElement).textContent = topic
    byId('command', HTMLElement).textContent = `mosquitto_pub -t '${topic.replaceAll("'", "'\\''")}' -m "$(date)"`
    clearTimeout(waiting)
    asking?.abort()
    ask()
  }

  function ask() {
    const request = new XMLHttpRequest()
    asking = request
    byId('connections', HTMLElement).textContent = String(++connections)
    try {
      const url = new URL(urlField.value, location.href)
      url.searchParams.set('handle', handleField.value)
      request.open('GET', url)
    } catch {
      show('stopped', 'This is no address to listen at')
      return
    }
    request.timeout = giveUpAfter
    request.onload = () => answered(request)
    request.onerror = () => again('The gateway cannot be reached, or does not let this page in (push.origins)')
    request.ontimeout = () => again('No answer within ten seconds')
    request.send()
  }

  /** @param {XMLHttpRequest} request */
  function answered({ status, responseText }) {
    /** @type {{ content?: string, detail?: string }} */
    let answer
    try {
      answer = JSON.parse(responseText)
    } catch {
      answer = {}
    }
    if (status !== 200 || typeof answer.content !== 'string') {
      again(answer.detail ?? `Something else answers there (status ${status})`)
      return
    }
    show('connected', 'Connected')
    if (answer.content !== '') add(answer.content)
    ask()
  }

  /** @param {string} why */
  function again(why) {
    show('waiting', `${why}. Trying again …`)
    waiting = setTimeout(ask, pause)
  }

  /** @param {string} content */
  function add(content) {
    byId('count', HTMLElement).textContent = String(++messages)
    byId('empty', HTMLElement).hidden = true
    const line = document.createElement('li')
    const time = document.createElement('time')
    time.textContent = new Date().toLocaleTimeString()
    const text = document.createElement('span')
    text.className = 'content'
    text.textContent = content
    line.append(time, text)
    list.prepend(line)
    if (list.childElementCount > mostListed) list.lastElementChild?.remove()
  }

  /**
   * @param {string} phase
   * @param {string} text
   */
  function show(phase, text) {
    way.dataset['phase'] = phase
    const state = byId('state', HTMLElement)
    if (state.textContent !== text) state.textContent = text
  }

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
})()
