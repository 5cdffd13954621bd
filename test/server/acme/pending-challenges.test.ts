import { once } from 'node:events'
import { createServer } from 'node:http'
import { createSecureServer } from 'node:http2'
import type { AddressInfo, Server } from 'node:net'
import { connect, createSecureContext } from 'node:tls'
import { expect, it, onTestFinished } from 'vitest'
import { PendingChallenges, withChallengeResponses } from '../../../src/server/acme/pending-challenges.js'
import { endValidations, selectProtocol } from '../../../src/server/acme/tls-alpn.js'
import { temporaryDirectory, writeCertificate } from '../rig.js'

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

it('requests for a pending token get its response, and all others go to the app', async () => {
  const challenges = new PendingChallenges()
  const app = { routing: (_: unknown, response: { end(text: string): unknown }) => void response.end('app') }
  const { routing } = withChallengeResponses(app, challenges)
  const port = await listening(createServer(routing))
  const ask = async (path: string, method = 'GET') => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method })
    return { type: response.headers.get('content-type'), text: await response.text() }
  }
  const path = '/.well-known/acme-challenge/token-1'
  const other = { type: null, text: 'app' }
  expect(await ask(path)).toEqual(other)
  challenges.addResponse('token-1', 'token-1.thumbprint')
  for (const each of [path, `${path}?x=1`, path.replace('w', '%77')])
    expect(await ask(each), each).toEqual({ type: 'application/octet-stream', text: 'token-1.thumbprint' })
  expect((await ask(path, 'HEAD')).type).toBe('application/octet-stream')
  for (const each of [
    `${path}2`,
    `${path}/`,
    '/.well-known/acme-challenge/',
    '/.well-known/acme-challenge/__proto__',
    '/token-1',
  ])
    expect(await ask(each), each).toEqual(other)
  expect(await ask(path, 'POST')).toEqual(other)
  challenges.clear()
  expect(await ask(path)).toEqual(other)
})

it('a CA gets the certificate of its challenge and nothing more, and clients get what they got before', async () => {
  const directory = await temporaryDirectory()
  const { pem } = await writeCertificate(directory, { name: 'usual.example' })
  const { pem: own } = await writeCertificate(directory, { name: 'a.example' })
  const challenges = new PendingChallenges()
  challenges.addContext('a.example', createSecureContext(own))
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const server = createSecureServer({
      ...{ ...pem, allowHTTP1: true, maxVersion, ALPNCallback: selectProtocol(challenges) },
    })
    endValidations(server)
    server.on('sessionError', () => {})
    server.on('request', (_, response) => void response.end('app'))
    const port = await listening(server)
    const open = async (servername: string, ALPNProtocols: string[]) => {
      const socket = connect({ port, host: '127.0.0.1', servername, ALPNProtocols, rejectUnauthorized: false })
      onTestFinished(() => void socket.destroy())
      await once(socket, 'secureConnect')
      return socket
    }
    const seen = async (...asked: Parameters<typeof open>) => {
      const socket = await open(...asked)
      return [socket.alpnProtocol, socket.getPeerCertificate().subject.CN]
    }
    expect(await seen('A.example', ['acme-tls/1'])).toEqual(['acme-tls/1', 'a.example'])
    expect(await seen('a.example', ['h2', 'http/1.1'])).toEqual(['h2', 'usual.example'])
    expect(await seen('a.example', ['http/1.1', 'acme-tls/1'])).toEqual(['http/1.1', 'usual.example'])
    expect(await seen('a.example', [])).toEqual([false, 'usual.example'])
    for (const asked of [
      ['b.example', ['acme-tls/1']],
      ['a.example', ['other']],
    ] as const)
      await expect(open(asked[0], [...asked[1]])).rejects.toThrow(/no application protocol/)

    const socket = await open('a.example', ['acme-tls/1'])
    let answer = ''
    socket.on('data', chunk => {
      answer += chunk
    })
    socket.on('error', () => {})
    socket.write('GET / HTTP/1.1\r\nHost: a.example\r\n\r\n')
    await once(socket, 'close')
    expect(answer).toBe('')
  }
})
