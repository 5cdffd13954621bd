import { once } from 'node:events'
import type { RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { expect, it, onTestFinished } from 'vitest'
import { makeAccountKey, orderCertificate } from '../../../src/server/acme/order.js'
import { PendingChallenges } from '../../../src/server/acme/pending-challenges.js'
import { temporaryDirectory, writeCertificate } from '../rig.js'

/** A server in place of an ACME server, and an order from it. */
async function orderFrom(
  respond: RequestListener,
  changed: { readonly ca?: undefined; readonly signal?: AbortSignal } = {},
) {
  const { pem } = await writeCertificate(await temporaryDirectory())
  const server = createServer(pem, respond).listen(0, '127.0.0.1')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const challenges = new PendingChallenges()
  return orderCertificate({
    ...{ directory: `https://localhost:${port}/`, ca: pem.cert, email: undefined, domains: ['a.example'] },
    ...{ challenge: 'http-01', challenges, accountKey: await makeAccountKey(), signal: new AbortController().signal },
    ...changed,
  })
}

const problem: RequestListener = ({ url, headers }, response) => {
  const base = `https://${headers.host}`
  const urls = ['newNonce', 'newAccount', 'newOrder'].map(name => [name, `${base}/${name}`])
  response.setHeader('replay-nonce', 'nonce')
  if (url !== '/newAccount') {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(Object.fromEntries(urls)))
    return
  }
  response.writeHead(429, { 'retry-after': '86400', 'content-type': 'application/problem+json' })
  response.end(JSON.stringify({ type: 'urn:ietf:params:acme:error:rateLimited', detail: 'too many accounts' }))
}

it.each<[what: string, respond: RequestListener, reason: RegExp]>([
  ['refuses', problem, /^too many accounts$/],
  ['fails', (_, response) => void response.writeHead(503, { 'retry-after': '86400' }).end(), /returned error 503/],
  ['is a website', (_, response) => void response.end('<html>'), /Unable to locate API resource/],
  ['sends too much', (_, response) => void response.end(Buffer.alloc(2 ** 21, 'a')), /maxContentLength/],
  ['closes the connection', request => void request.socket.destroy(), /socket hang up|ECONNRESET/],
])('an order from a server that %s fails at once, with the reason', async (_, respond, reason) => {
  await expect(orderFrom(respond)).rejects.toThrow(reason)
})

it('a request whose nonce is refused is repeated with the new one (RFC 8555 §6.5)', async () => {
  const nonces: unknown[] = []
  const order = orderFrom((request, response) => {
    if (request.url !== '/newAccount') return problem(request, response)
    json(request).then((body: unknown) => {
      const { protected: header }: { protected?: string } = { ...(body as object) }
      nonces.push(JSON.parse(Buffer.from(header ?? '', 'base64url').toString()).nonce)
      if (nonces.length > 1) return problem(request, response)
      response.writeHead(400, { 'replay-nonce': 'new nonce', 'content-type': 'application/problem+json' })
      response.end(JSON.stringify({ type: 'urn:ietf:params:acme:error:badNonce' }))
    })
  })
  await expect(order).rejects.toThrow(/^too many accounts$/)
  expect(nonces).toEqual(['nonce', 'new nonce'])
})

it('a server with a certificate of an unknown CA gets no request', async () => {
  let requests = 0
  const order = orderFrom(() => requests++, { ca: undefined })
  await expect(order).rejects.toThrow(/self-signed certificate/)
  expect(requests).toBe(0)
})

it('an order whose signal aborts ends in the middle of a response', async () => {
  const ending = new AbortController()
  const order = orderFrom(
    (_, response) => {
      response.write('{')
      ending.abort()
    },
    { signal: ending.signal },
  )
  await expect(order).rejects.toThrow(/cancel/)
})
