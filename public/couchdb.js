/*
 * CouchDB's changes as its own clients read them: the sequence of the last change, then one long-poll after another from
 * there.
 */
;(() => {
  /** Delay after a failed request, in milliseconds. */
  const pause = 1_000

  const { byId, add, show, command, addressOf, refusalOf, authorization } = compatPage
  const query = new URLSearchParams(location.search)
  const urlField = byId('url', HTMLInputElement)
  const databaseField = byId('database', HTMLInputElement)
  let listening = new AbortController()

  urlField.value = query.get('url') ?? addressOf('/couchdb')
  databaseField.value = query.get('database') ?? 'notifications'
  byId('form', HTMLFormElement).addEventListener('submit', event => {
    event.preventDefault()
    listen()
  })
  listen()

  function listen() {
    const database = databaseField.value
    byId('topic', HTMLElement).textContent = `${database}/#`
    byId('command', HTMLElement).textContent = command(`${database}/europe`, `'{"msg":"hello"}'`)
    listening.abort()
    listening = new AbortController()
    void follow(`${urlField.value.replace(/\/$/, '')}/${encodeURIComponent(database)}`, listening.signal)
  }

  /**
   * @param {string} url of the database
   * @param {AbortSignal} signal
   */
  async function follow(url, signal) {
    /** The sequence to continue from; -1 until it is known. */
    let since = -1
    while (!signal.aborted) {
      try {
        if (since < 0) since = Number((await ask(url, signal)).update_seq)
        reached(since)
        const changes = await ask(`${url}/_changes?feed=longpoll&include_docs=true&since=${since}`, signal)
        for (const { doc } of changes.results) addDocument(doc)
        since = changes.last_seq
      } catch (error) {
        if (signal.aborted) return
        show('waiting', `${error instanceof Refusal ? error.message : unreachable}. Trying again …`)
        await new Promise(resolve => setTimeout(resolve, pause))
      }
    }
  }

  /** @param {{ msg?: unknown, payloadBase64?: string }} doc */
  function addDocument(doc) {
    if (typeof doc.msg === 'string') add(doc.msg)
    else if (typeof doc.payloadBase64 === 'string') add(doc.payloadBase64, 'base64')
    else add(JSON.stringify(doc))
  }

  const unreachable = 'The gateway cannot be reached, or refuses the origin of this page (push.origins)'

  /** @param {number} sequence */
  function reached(sequence) {
    byId('sequence', HTMLElement).textContent = String(sequence)
    show('connected', 'Connected')
  }

  class Refusal extends Error {}

  /**
   * @param {string} url
   * @param {AbortSignal} signal
   */
  async function ask(url, signal) {
    const header = authorization()
    const answer = await fetch(url, { signal, ...(header !== undefined && { headers: { authorization: header } }) })
    const body = await answer.text()
    if (!answer.ok) throw new Refusal(refusalOf(answer.status, body))
    try {
      return JSON.parse(body)
    } catch {
      throw new Refusal(`The response is not from mqway (status ${answer.status})`)
    }
  }
})()
