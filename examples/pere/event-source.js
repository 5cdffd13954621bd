/*
 * Reads an event stream (HTML Living Standard §9.2) with nothing but Node's own fetch: comes back where it was whenever a
 * stream ends or is silent for a minute, and throws where the server says no.
 */

const silence = 60_000

/**
 * The events without a name of their own, for ever.
 *
 * @param {string} url
 * @param {Record<string, string>} headers
 * @returns {AsyncGenerator<{ id: string, data: string }>}
 * @throws where the answer is anything but 200
 */
export async function* events(url, headers = {}) {
  const place = { id: '', retry: 3000 }
  for (;;) {
    try {
      yield* oneStream(url, headers, place)
    } catch (error) {
      if (error instanceof Refusal) throw error
      // The network, or the server, is away.
    }
    await new Promise(resolve => setTimeout(resolve, place.retry))
  }
}

class Refusal extends Error {}

async function* oneStream(url, headers, place) {
  const silent = new AbortController()
  let timer = setTimeout(() => silent.abort(), silence)
  try {
    const known = place.id === '' ? {} : { 'Last-Event-Id': place.id }
    const answer = await fetch(url, {
      headers: { Accept: 'text/event-stream', ...headers, ...known },
      signal: silent.signal,
    })
    if (answer.status !== 200) throw new Refusal(`${answer.status}: ${(await answer.text()).trim()}`)
    const decoder = new TextDecoder()
    let text = ''
    for await (const bytes of answer.body) {
      clearTimeout(timer)
      timer = setTimeout(() => silent.abort(), silence)
      // The server ends its lines with a line feed.
      const blocks = (text + decoder.decode(bytes, { stream: true })).split('\n\n')
      text = blocks.pop()
      for (const block of blocks) yield* read(block, place)
    }
  } finally {
    clearTimeout(timer)
    silent.abort()
  }
}

function* read(block, place) {
  const fields = { data: [], event: [] }
  for (const line of block.split('\n')) {
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/.exec(line)
    if (name === 'id') place.id = value ?? ''
    else if (name === 'retry' && /^\d+$/.test(value)) place.retry = Number(value)
    else fields[name]?.push(value ?? '')
  }
  if (fields.data.length > 0 && fields.event.length === 0) yield { id: place.id, data: fields.data.join('\n') }
}
