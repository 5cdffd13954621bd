/*
 * Receives the calls of a webhook: checks their signatures, and prints each event once. GET shows the last events.
 *
 *   node examples/webhook/receiver.js [webhook.secret] [9000]
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'

const [secretFile = 'webhook.secret', port = '9000'] = process.argv.slice(2)
const [secret] = readFileSync(secretFile, 'utf8').trim().split('\n')
const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')

/** Seconds that the clocks of both sides may differ, and that a call may take: older ones may be repeated by somebody else. */
const tolerance = 300
const maxBody = 8 * 1024 ** 2

/** The ids of the last calls: a call comes again if its response was lost. */
const seen = new Set()
const last = []

const print = text => process.stdout.write(`${text}\n`)

function isSigned(headers, body) {
  const { 'webhook-id': id = '', 'webhook-timestamp': timestamp = '', 'webhook-signature': signatures = '' } = headers
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= tolerance)) return false
  const expected = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest()
  // There are two while the secret changes.
  return signatures.split(' ').some(signature => {
    const given = Buffer.from(signature.replace(/^v1,/, ''), 'base64')
    return given.length === expected.length && timingSafeEqual(given, expected)
  })
}

/** Stores the events: only then may the call be answered. */
function take(id, { events, dropped }) {
  if (seen.has(id)) return
  seen.add(id)
  if (seen.size > 1000) seen.delete(seen.values().next().value)
  if (dropped) print(`${dropped} events are only in the dead-letter log`)
  for (const event of events) {
    print(`${event.topic ?? event.event} ${event.payload ?? event.payloadBase64 ?? event.text ?? ''}`)
    last.push(event)
  }
  last.splice(0, last.length - 100)
}

async function bodyOf(request) {
  const chunks = []
  let size = 0
  for await (const chunk of request) {
    size += chunk.length
    if (size > maxBody) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const server = createServer(async (request, response) => {
  try {
    if (request.method === 'GET')
      return response.setHeader('content-type', 'application/json').end(JSON.stringify(last))
    if (request.method !== 'POST') return response.writeHead(405, { allow: 'GET, POST' }).end()
    const body = await bodyOf(request)
    if (body === undefined) return response.writeHead(413, { connection: 'close' }).end()
    if (!isSigned(request.headers, body)) return response.writeHead(401).end()
    take(request.headers['webhook-id'], JSON.parse(body))
    response.writeHead(204).end()
  } catch (error) {
    // Any status but 2xx brings the call again.
    process.stderr.write(`${error.stack}\n`)
    response.writeHead(500).end()
  }
})
server.listen(Number(port), '127.0.0.1', () => print(`http://127.0.0.1:${server.address().port}/hook`))
