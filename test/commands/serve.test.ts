import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls, { type PeerCertificate } from 'node:tls'
import bcrypt from 'bcrypt'
import mqtt, { type MqttClient } from 'mqtt'
import { generate } from 'selfsigned'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { startMosquitto } from '../helpers/mosquitto.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import type { RunningProgram } from '../helpers/processes.js'
import { mqway, type ServingProgram, serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'

const freePorts = ['--http-port', '0', '--https-port', '0', '--mqtt-port', '0']

let directory: string
const programs: RunningProgram[] = []
const clients: MqttClient[] = []
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mqway-serve-'))
})
afterEach(async () => {
  for (const client of clients.splice(0)) client.end(true)
  await Promise.all(programs.splice(0).map(program => program.stop('SIGKILL')))
  rmSync(directory, { recursive: true, force: true })
})
const serve = async (...args: string[]): Promise<ServingProgram> => {
  const program = await serving(args, directory)
  programs.push(program)
  return program
}
const start = (...args: string[]): RunningProgram => {
  const program = mqway(args, directory)
  programs.push(program)
  return program
}
const connect = async (url: string): Promise<MqttClient> => {
  const client = await mqtt.connectAsync(url, { rejectUnauthorized: false, reconnectPeriod: 0 })
  clients.push(client)
  return client
}
/** An address that somebody has. */
const taken = async (): Promise<{ port: number; server: net.Server }> => {
  const server = net.createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return { port: (server.address() as AddressInfo).port, server }
}

describe('mqway serve', () => {
  it('names every URL in one log line, makes a development certificate, and serves on all of them', async () => {
    const gateway = await serve(...freePorts)
    expect(gateway.urls.map(url => url.replace(/\d+/, 'PORT'))).toEqual([
      'http://localhost:PORT',
      'ws://localhost:PORT/mqtt',
      'https://localhost:PORT',
      'wss://localhost:PORT/mqtt',
      'mqtt://localhost:PORT',
    ])
    expect(readFileSync(join(directory, 'certs/localhost.crt'), 'utf8')).toContain('BEGIN CERTIFICATE')
    const page = await fetch(gateway.url('http'))
    expect(await page.text()).toContain('<title>')
    const [browser, tool] = [await connect(gateway.url('wss')), await connect(gateway.url('mqtt'))]
    await browser.subscribeAsync('/news/+/sport', { qos: 1 })
    const arrived = nextMessage(browser)
    await tool.publishAsync('/news/europe/sport', 'goal', { qos: 1 })
    expect(String((await arrived).payload)).toBe('goal')
    expect((await fetch(`${gateway.url('http')}/readyz`)).status).toBe(200)
  })

  it('ends with 0 on SIGTERM and on SIGINT, and tells open tunnels 1001', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const gateway = await serve(...freePorts, '--data', 'none')
      const client = new WebSocket(gateway.url('ws'), 'mqtt')
      await once(client, 'open')
      const closed = once(client, 'close')
      gateway.child.kill(signal)
      expect((await closed)[0]).toBe(1001)
      expect(await gateway.exited()).toBe(0)
    }
  })

  it('ends within the grace time although a client neither reads nor leaves', async () => {
    writeFileSync(join(directory, 'mqway.yaml'), 'shutdown: { grace: 500ms }\n')
    const gateway = await serve(...freePorts, '--data', 'none')
    const socket = net.connect(Number(new URL(gateway.url('mqtt')).port), '127.0.0.1')
    socket.on('error', () => {})
    await once(socket, 'connect')
    const idle = net.connect(Number(new URL(gateway.url('https')).port), '127.0.0.1')
    idle.on('error', () => {})
    await once(idle, 'connect')
    gateway.child.kill('SIGTERM')
    expect(await gateway.exited()).toBe(0)
    socket.destroy()
    idle.destroy()
  })

  it('ends at once on a second signal', async () => {
    writeFileSync(join(directory, 'mqway.yaml'), 'shutdown: { grace: 1h }\nlimits: { closeTimeout: 5m }\n')
    const gateway = await serve(...freePorts, '--data', 'none')
    const socket = net.connect({
      port: Number(new URL(gateway.url('mqtt')).port),
      host: '127.0.0.1',
      allowHalfOpen: true,
    })
    socket.on('error', () => {})
    await once(socket, 'connect')
    // The tunnel is there once the broker answers.
    socket.write(Buffer.from('100d00044d5154540402003c000161', 'hex'))
    await once(socket, 'data')
    gateway.child.kill('SIGTERM')
    await gateway.logged('stopping')
    gateway.child.kill('SIGTERM')
    expect(await gateway.exited()).toBe(1)
    socket.destroy()
  })

  it.each([
    [
      '--mqtt-port',
      /port \d+ on 127\.0\.0\.1 is taken: is mosquitto running\? then: --broker mqtt:\/\/127\.0\.0\.1:\d+ --mqtt-port off/,
    ],
    ['--http-port', /--http-port/],
    ['--https-port', /--https-port/],
  ])('says which port is taken by %s and what to do, with exit code 69', async (flag, message) => {
    const { port, server } = await taken()
    const gateway = start('serve', ...freePorts.map((arg, i) => (freePorts[i - 1] === flag ? String(port) : arg)))
    expect(await gateway.exited()).toBe(69)
    expect(gateway.errors()).toMatch(message)
    expect(gateway.errors().split('\n').length).toBe(2)
    server.close()
  })

  it('says that another mqway has the data directory, with exit code 69', async () => {
    await serve(...freePorts)
    const second = start(...freePorts)
    expect(await second.exited()).toBe(69)
    expect(second.errors()).toContain('data')
  })

  it('refuses a wrong configuration with exit code 2 and a line for each problem', async () => {
    const gateway = start('--http-port', 'x', '--brocker', 'y')
    expect(await gateway.exited()).toBe(2)
    expect(gateway.errors().trim().split('\n').length).toBe(2)
  })

  it('listens on other interfaces only when told that anybody may connect', async () => {
    const gateway = start(...freePorts, '--host', '0.0.0.0')
    expect(await gateway.exited()).toBe(2)
    expect(gateway.errors()).toContain('anonymous: true')
  })

  it('reads renewed certificates on SIGHUP without dropping a connection; a bad one is refused and the old one stays', async () => {
    const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')]
    const issue = async (name: string): Promise<void> => {
      const pems = await generate([{ name: 'commonName', value: name }], { keyType: 'ec', algorithm: 'sha256' })
      writeFileSync(key, pems.private)
      writeFileSync(cert, pems.cert)
    }
    await issue('first')
    const gateway = await serve(...freePorts, '--data', 'none', '--cert', cert, '--key', key)
    const client = await connect(gateway.url('wss'))
    const shown = async (): Promise<string> => {
      const socket = tls.connect({
        port: Number(new URL(gateway.url('https')).port),
        host: '127.0.0.1',
        rejectUnauthorized: false,
      })
      await once(socket, 'secureConnect')
      const { subject }: PeerCertificate = socket.getPeerCertificate()
      socket.destroy()
      return [subject.CN].flat().join()
    }
    expect(await shown()).toBe('first')
    await issue('second')
    gateway.child.kill('SIGHUP')
    await gateway.logged('The certificate was replaced')
    expect(await shown()).toBe('second')
    writeFileSync(cert, 'nonsense')
    gateway.child.kill('SIGHUP')
    const refusal = await gateway.logged('The new certificate was refused')
    expect(String(refusal['msg'])).toContain(cert)
    expect(await shown()).toBe('second')
    await client.publishAsync('still', 'here', { qos: 1 })
  })

  it('lets in whom the password file has, and after SIGHUP whom it has then', async () => {
    const users = join(directory, 'users')
    const entry = (name: string): string => `${name}:${bcrypt.hashSync('right', 4)}\n`
    writeFileSync(users, entry('alice'))
    writeFileSync(join(directory, 'mqway.yaml'), `access: {htpasswd: ${users}}\n`)
    const gateway = await serve(...freePorts, '--data', 'none')
    const enter = async (username?: string): Promise<number> => {
      const login = username === undefined ? {} : { username, password: 'right' }
      const client = mqtt.connect(gateway.url('ws'), { ...login, reconnectPeriod: 0 })
      clients.push(client)
      return new Promise(resolve => {
        client.on('connect', () => resolve(0))
        client.on('error', error => resolve('code' in error ? Number(error.code) : -1))
      })
    }
    expect([await enter('alice'), await enter('bob'), await enter()]).toEqual([0, 4, 5])
    writeFileSync(users, entry('bob'))
    gateway.child.kill('SIGHUP')
    await gateway.logged('reloaded the password file')
    expect([await enter('alice'), await enter('bob')]).toEqual([4, 0])
  })

  it('reloads its file on SIGHUP: says what has changed and what needs a restart, and changes nothing if the file is invalid', async () => {
    const file = join(directory, 'mqway.yaml')
    const rules = (filter: string): string =>
      `access: {jwt: {secret: ${'x'.repeat(32)}}, rules: [{to: anonymous, publish: ['${filter}']}]}\n`
    writeFileSync(file, rules('a/#'))
    const gateway = await serve(...freePorts, '--data', 'none')
    const publish = async (topic: string): Promise<number> =>
      (await fetch(`${gateway.url('http')}/v1/publish?topic=${topic}`, { method: 'POST', body: 'x' })).status
    expect(await publish('b/x')).toBe(403)

    writeFileSync(file, `${rules('b/#')}mqtts: {port: 1}\n`)
    gateway.child.kill('SIGHUP')
    expect(await gateway.logged('Reloaded')).toMatchObject({ changed: ['access.rules'] })
    expect(await gateway.logged('Restart')).toMatchObject({ restart: ['mqtts.port'] })
    expect(await publish('b/x')).toBe(201)

    writeFileSync(file, `${rules('c/#')}htpp: {}\n`)
    gateway.child.kill('SIGHUP')
    expect((await gateway.logged('nothing has changed'))['msg']).toContain('mqway.yaml:2: htpp')
    expect([await publish('b/x'), await publish('c/x')]).toEqual([201, 403])
    const metrics = await (await fetch(`${gateway.url('http')}/metrics`)).text()
    expect(metrics).toContain('mqway_config_reloads_total{result="refused"} 1')
  })

  it('never logs a password or a payload', async () => {
    const gateway = await serve(...freePorts, '--data', 'none', '--log-level', 'trace')
    const client = await mqtt.connectAsync(gateway.url('ws'), {
      username: 'ann',
      password: 'p4ssw0rd',
      clientId: 'me',
      reconnectPeriod: 0,
    })
    await client.publishAsync('topic', 's3cret payload', { qos: 1 })
    await client.endAsync()
    const lines: string[] = []
    gateway.child.stdout.on('data', chunk => lines.push(String(chunk)))
    const connected = await gateway.logged('connected')
    expect(connected).toMatchObject({
      clientId: 'me',
      username: 'ann',
      protocolVersion: 4,
      path: '/mqtt',
      subprotocol: 'mqtt',
      peer: '127.0.0.1',
    })
    gateway.child.kill('SIGTERM')
    await gateway.exited()
    expect(lines.join('')).not.toMatch(/p4ssw0rd|s3cret/)
    expect(JSON.stringify(connected)).not.toMatch(/p4ssw0rd|s3cret/)
  })
})

describeWith('mosquitto', 'mqway serve --broker in front of mosquitto', () => {
  it('turns /readyz to 503 within 5 s of the death of the broker, says why, and answers upgrades with 502', async () => {
    const mosquitto = await startMosquitto()
    const gateway = await serve(...freePorts, '--broker', `mqtt://127.0.0.1:${mosquitto.port}`)
    const ready = (): Promise<Response> => fetch(`${gateway.url('http')}/readyz`)
    expect((await ready()).status).toBe(200)
    await mosquitto.kill()
    const diedAt = performance.now()
    let answer = await ready()
    while (answer.status === 200 && performance.now() - diedAt < 5000) answer = await ready()
    expect(answer.status).toBe(503)
    expect(await answer.text()).toContain('does not accept connections')
    const client = new WebSocket(gateway.url('ws'), 'mqtt')
    const [, response] = (await once(client, 'unexpected-response')) as [unknown, http.IncomingMessage]
    expect(response.statusCode).toBe(502)
    client.on('error', () => {})
    client.terminate()
    await mosquitto.stop()
  })
})

describeWith('mosquitto', 'moving from lighttpd', () => {
  it('the configuration of the article, imported, checks and serves its pages and its tunnel', async () => {
    const mosquitto = await startMosquitto()
    const pems = await generate([{ name: 'commonName', value: 'ns.example.tld' }], {
      keyType: 'ec',
      algorithm: 'sha256',
    })
    writeFileSync(join(directory, 'sample-certificate.pem'), pems.private + pems.cert)
    const [httpPort, httpsPort] = [await taken(), await taken()]
    const article = readFileSync(new URL('../fixtures/lighttpd/article.conf', import.meta.url), 'utf8')
      // Its ports and paths are this machine's; all else is as printed.
      .replace('"1883"', `"${mosquitto.port}"`)
      .replace(/= 80$/m, `= ${httpPort.port}`)
      .replace(':443"', `:${httpsPort.port}"`)
      .replace('/var/www', join(directory, 'www'))
      .replace('/etc/lighttpd/certs', directory)
    for (const { server } of [httpPort, httpsPort]) server.close()
    writeFileSync(join(directory, 'lighttpd.conf'), article)
    mkdirSync(join(directory, 'www'))
    writeFileSync(join(directory, 'www', 'index.html'), '<h1>my page</h1>')

    const importer = start('import', 'lighttpd.conf')
    const yaml: string[] = []
    importer.child.stdout.on('data', chunk => yaml.push(String(chunk)))
    expect(await importer.exited()).toBe(0)
    expect(importer.errors()).toContain('lighttpd.conf:')
    writeFileSync(join(directory, 'mqway.yaml'), yaml.join(''))
    const check = start('check')
    expect(await check.exited()).toBe(0)
    // Safe it is not, as it never was; there is nothing else to say of it.
    expect(check.errors()).toMatch(/^(warning: .*\n)+$/)

    await serve()
    expect(await (await fetch(`http://127.0.0.1:${httpPort.port}/`)).text()).toBe('<h1>my page</h1>')
    const client = await mqtt.connectAsync(`wss://127.0.0.1:${httpsPort.port}/mqtt`, {
      rejectUnauthorized: false,
      protocolId: 'MQIsdp',
      protocolVersion: 3,
      reconnectPeriod: 0,
    })
    clients.push(client)
    await client.subscribeAsync('/news/+/sport', { qos: 1 })
    const arrived = nextMessage(client)
    const publisher = await connect(`mqtt://127.0.0.1:${mosquitto.port}`)
    await publisher.publishAsync('/news/europe/sport', 'this is the message about european sports')
    expect(String((await arrived).payload)).toBe('this is the message about european sports')
    await mosquitto.stop()
  })
})
