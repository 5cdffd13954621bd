import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { makeCertificates } from '../broker/upstream/certificates.js'
import { handshake } from '../helpers/handshake.js'
import { type MosquittoListener, startMosquitto } from '../helpers/mosquitto.js'
import { mqway, type ServingProgram, serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

function directory(): string {
  const made = mkdtempSync(join(tmpdir(), 'mqway-'))
  onTestFinished(() => rmSync(made, { recursive: true, force: true }))
  return made
}

/** A gateway in front of a broker, with further lines of its configuration. */
async function gatewayTo(broker: object | string, more: object = {}): Promise<ServingProgram> {
  const cwd = directory()
  const config = { http: { port: 0 }, https: { port: 'off' }, mqtt: { port: 'off' }, data: 'none', broker, ...more }
  writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify(config))
  const gateway = await serving([], cwd)
  onTestFinished(async () => {
    gateway.child.kill('SIGKILL')
    await gateway.exited()
  })
  return gateway
}

async function broker(listener?: MosquittoListener, config?: readonly string[]) {
  const mosquitto = await startMosquitto(listener, config)
  onTestFinished(() => mosquitto.stop())
  return mosquitto
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.close()
  })
  return (server.address() as AddressInfo).port
}

const readiness = async (gateway: ServingProgram): Promise<string> =>
  (await fetch(`${gateway.url('http')}/readyz`)).text()

/** Checks that `/readyz`, the refusal of a handshake and its log line have the address and the cause. */
async function expectNamed(gateway: ServingProgram, address: string, cause: RegExp): Promise<void> {
  const detail: string = JSON.parse(await readiness(gateway)).detail
  expect(detail).toContain(address)
  expect(detail).toMatch(cause)
  const logged = gateway.logged('The MQTT broker d')
  const { status, text } = await handshake(gateway.url('ws'))
  expect(text).toContain(address)
  expect(text).toMatch(cause)
  let line = await logged
  while (!('status' in line)) line = await gateway.logged('The MQTT broker d')
  expect(line).toMatchObject({ level: 50, status })
  expect(line['msg']).toContain(address)
  expect(line['msg']).toMatch(cause)
  expect(JSON.stringify(line)).not.toContain('node:internal')
}

describeWith(['mosquitto', 'openssl'], 'a broker that cannot be reached', () => {
  it('is named with its cause: nothing listens, no such host, no such socket', async () => {
    const server = createServer()
    const port = await listening(server)
    await new Promise(resolve => server.close(resolve))
    await expectNamed(await gatewayTo(`mqtt://127.0.0.1:${port}`), `mqtt://127.0.0.1:${port}`, /nothing listens there/)
    await expectNamed(
      await gatewayTo('mqtt://broker.invalid:1883'),
      'mqtt://broker.invalid:1883',
      /host name (is not known|could not be looked up)/,
    )
    await expectNamed(await gatewayTo('unix:/nowhere/b.sock'), 'unix:/nowhere/b.sock', /there is no such socket/)
  })

  it('is named with its cause: silence', async () => {
    const port = await listening(createServer(socket => socket.on('error', () => {}).resume()))
    const url = `mqtts://127.0.0.1:${port}`
    const gateway = await gatewayTo({ url, connectTimeout: '500ms' })
    await expectNamed(gateway, url, /no answer within 500 ms to the TLS handshake.*mqtt:\/\//)
  })

  it('is named with its cause: TLS to a port without it, an unknown CA, a certificate for another name', async () => {
    const plain = await broker()
    const url = `mqtts://127.0.0.1:${plain.port}`
    await expectNamed(await gatewayTo(url), url, /TLS.*begins with mqtt:\/\//)
    const certificates = makeCertificates()
    onTestFinished(() => rmSync(certificates.directory, { recursive: true }))
    const secure = await broker({ kind: 'tls', ...certificates.server })
    const secureUrl = `mqtts://127.0.0.1:${secure.port}`
    await expectNamed(await gatewayTo(secureUrl), secureUrl, /unknown CA; name that as ca/)
    const named = await gatewayTo({ url: secureUrl, ca: certificates.ca })
    await expectNamed(named, secureUrl, /certificate is for another name; see servername/)
  })

  it('is named with its cause where a port with TLS is connected to without it, by push as well', async () => {
    const certificates = makeCertificates()
    onTestFinished(() => rmSync(certificates.directory, { recursive: true }))
    const { port } = await broker({ kind: 'tls', ...certificates.server })
    const gateway = await gatewayTo(`mqtt://127.0.0.1:${port}`, { push: { topics: ['a/#'] } })
    const detail: string = JSON.parse(await readiness(gateway)).detail
    expect(detail).toMatch(new RegExp(`mqtt://127.0.0.1:${port}: .*begins with mqtts://`))
    const ended = gateway.logged('The connection to the MQTT broker')
    const { client } = await handshake(gateway.url('ws'))
    client.send(Buffer.from('100c00044d5154540402000a0000', 'hex'))
    expect((await ended)['msg']).toMatch(new RegExp(`mqtt://127.0.0.1:${port} sent nothing; .*begins with mqtts://`))
  })

  it('is named with its cause where push connects without TLS to a port with it, or without the certificate that is asked for', async () => {
    const certificates = makeCertificates()
    onTestFinished(() => rmSync(certificates.directory, { recursive: true }))
    const { port } = await broker({ kind: 'tls', ...certificates.server, clientCa: certificates.ca })
    const failureOf = async (broker: object | string): Promise<unknown> => {
      const cwd = directory()
      const config = { http: { port: 0 }, https: { port: 'off' }, mqtt: { port: 'off' }, data: 'none' }
      writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify({ ...config, broker, push: { topics: ['a/#'] } }))
      const gateway = mqway(['--log-format', 'json'], cwd)
      onTestFinished(async () => {
        gateway.child.kill('SIGKILL')
        await gateway.exited()
      })
      for (;;) {
        const { msg } = JSON.parse(await gateway.line())
        if (String(msg).includes('push cannot connect')) return msg
      }
    }
    expect(await failureOf(`mqtt://127.0.0.1:${port}`)).toMatch(
      new RegExp(`mqtt://127.0.0.1:${port}: .*begins with mqtts://`),
    )
    const url = `mqtts://127.0.0.1:${port}`
    expect(await failureOf({ url, ca: certificates.ca, servername: 'broker.test' })).toMatch(
      new RegExp(`${url}: .*client certificate \\(cert, key\\)`),
    )
  })

  it('tells addresses only to those that metrics.allow names', async () => {
    const gateway = await gatewayTo('unix:/nowhere/b.sock', { metrics: { allow: ['192.0.2.1'] } })
    expect(JSON.parse(await readiness(gateway))).toEqual({ status: 'unavailable' })
    const { status, text } = await handshake(gateway.url('ws'))
    expect([status, text]).toEqual([502, 'The MQTT broker does not accept connections: there is no such socket\n'])
  })
})

describeWith('mosquitto', 'a broker that refuses the login of push', () => {
  it('is named with the option, in /readyz, the log and the answers of the HTTP API', async () => {
    const { port } = await broker(undefined, ['allow_anonymous false'])
    const url = `mqtt://127.0.0.1:${port}`
    const gateway = await gatewayTo(url, { push: { topics: ['a/#'], username: 'ann', password: 'no' } })
    let detail = ''
    await eventually(async () => {
      detail = JSON.parse(await readiness(gateway)).detail
      return detail.includes('push.username')
    })
    expect(detail).toBe(
      `Push has no session with the broker: ${url}: it does not authorize the session (code 135): see push.username and push.password`,
    )
    const answer = await fetch(`${gateway.url('http')}/v1/publish?topic=a/b`, { method: 'POST', body: 'x' })
    expect(answer.status).toBe(503)
    expect(await answer.text()).toContain('push.username')
  })
})
