/*
 * RRR's push as in its own page: one XMLHttpRequest after the other, each with a timeout of ten seconds.
 */
;(() => {
  /** Timeout of a request, in milliseconds; the gateway responds after five seconds. */
  const giveUpAfter = 10_000
  /** Delay after a failed request, in milliseconds. */
  const pause = 1_000

  const { byId, add, show, command, addressOf, refusalOf, authorization } = compatPage
  const query = new URLSearchParams(location.search)
  const urlField = byId('url', HTMLInputElement)
  const handleField = byId('handle', HTMLInputElement)
  let connections = 0
  /** @type {XMLHttpRequest | undefined} */
  let asking
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let waiting

  urlField.value = query.get('url') ?? addressOf('/rrr/')
  handleField.value = query.get('handle') ?? '1'
  byId('form', HTMLFormElement).addEventListener('submit', event => {
    event.preventDefault()
    listen()
  })
  listen()

  function listen() {
    const topic = `push/${handleField.value}`
    byId('topic', HTMLElement).textContent = topic
    byId('command', HTMLElement).textContent = command(topic, '"$(date)"')
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
      const header = authorization()
      if (header !== undefined) request.setRequestHeader('authorization', header)
      if (connections === 1) awaitFirst(request, url)
    } catch {
      show('stopped', 'The address is not a valid URL')
      return
    }
    request.timeout = giveUpAfter
    request.onload = () => answered(request)
    request.onerror = () => again('The gateway cannot be reached, or refuses the origin of this page (push.origins)')
    request.ontimeout = () => again('No response within ten seconds')
    request.send()
  }

  /**
   * Shows “Connected” during the first request, which may take five seconds, if the gateway is healthy and the request has not been refused by
   * then.
   *
   * @param {XMLHttpRequest} request
   * @param {URL} url
   */
  async function awaitFirst(request, url) {
    show('connecting', 'Connecting: the first response arrives within five seconds')
    if (url.origin !== location.origin) return
    const health = await fetch('/healthz').catch(() => undefined)
    if (health?.ok && asking === request && request.readyState < XMLHttpRequest.DONE) show('connected', 'Connected')
  }

  /** @param {XMLHttpRequest} request */
  function answered({ status, responseText }) {
    /** @type {{ content?: string, encoding?: string }} */
    let answer
    try {
      answer = JSON.parse(responseText)
    } catch {
      answer = {}
    }
    if (status !== 200 || typeof answer.content !== 'string') {
      again(refusalOf(status, responseText))
      return
    }
    show('connected', 'Connected')
    if (answer.content !== '') add(answer.content, answer.encoding)
    ask()
  }

  /** @param {string} why */
  function again(why) {
    show('waiting', `${why}. Trying again …`)
    waiting = setTimeout(ask, pause)
  }
})()
