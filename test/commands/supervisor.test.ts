import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { allTransports, type EventClient } from '../helpers/event-clients.js'
import { type MosquittoListener, startMosquitto } from '../helpers/mosquitto.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { mqway, type ServingProgram, serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { type Supervisord, startSupervisord } from '../helpers/supervisord.js'
import { eventually } from '../helpers/wait.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-supervisor-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** Whose end takes with it what a test has opened. */
type Test = Pick<TestContext, 'onTestFinished'>

/** A program that ends with an exit code when it is told to, and is not started again. */
const crashing = (name: string, code: number): string[] => [
  `[program:${name}]`,
  `command=/bin/sh -c "exit ${code}"`,
  'autostart=false',
  'autorestart=false',
  'startsecs=0',
]

/** A program that supervisord gives up. */
const hopeless = (name: string): string[] => [
  `[program:${name}]`,
  'command=/bin/false',
  'autostart=false',
  'startretries=0',
]

/** A program that writes a file of a test to supervisord. */
const talking = (name: string, script: string): string[] => [
  `[program:${name}]`,
  `command=/usr/bin/python3 ${script}`,
  'autostart=false',
  'autorestart=false',
  'startsecs=0',
  'stdout_capture_maxbytes=2MB',
  'stdout_events_enabled=true',
]

async function startBroker({ onTestFinished }: Test, config?: string[], listener?: MosquittoListener) {
  const mosquitto = await startMosquitto(listener, config)
  onTestFinished(() => mosquitto.stop())
  return mosquitto
}

/** Somebody who gets all that is told of processes, the mqway that tells it aside. */
async function listenTo(gateway: ServingProgram, name: string, { onTestFinished }: Test): Promise<EventClient> {
  const client = await allTransports[name]?.({ http: gateway.url('http'), https: '' }, { topics: ['supervisor/+/+/+'] })
  if (!client) throw new Error(`there is no transport ${name}`)
  onTestFinished(() => client.close())
  return client
}

/** The messages that have come for a process, in words. */
const statesOf = ({ events }: EventClient, process: string): string[] =>
  events
    .filter(({ topic }) => topic.startsWith(`supervisor/${process}/${process}/`))
    .map(({ topic, payload }) => `${payload.length === 0 ? 'no more ' : ''}${topic.split('/').at(-1)}`)

/** The retained messages of some processes, when there are at least so many, and those that come soon after. */
async function retainedBy(url: string, processes: readonly string[]): Promise<string[]> {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0 })
  const topics = new Set<string>()
  client.on('message', topic => topics.add(topic))
  const found = () => [...topics].filter(topic => processes.some(name => topic.includes(`/${name}/`))).sort()
  await client.subscribeAsync(['supervisor/#', 'end'])
  await eventually(() => found().length >= processes.length)
  await client.publishAsync('end', '{}', { qos: 1 })
  await eventually(() => topics.has('end'))
  await client.endAsync()
  return found()
}

const script = join(directory, 'talk.py')
writeFileSync(
  script,
  [
    'import sys',
    'b=b"<!--XSUPERVISOR:BEGIN-->"; e=b"<!--XSUPERVISOR:END-->"',
    'w=lambda d: (sys.stdout.buffer.write(b+d+e), sys.stdout.flush())',
    String.raw`w(b'"q" \\ \n </script> \xf0\x9f\x98\x80'); w(bytes(range(256))); w(b"\xc3\xa9"*300000)`,
  ].join('\n'),
)

// supervisord looks once a second: they wait together.
describe.concurrent('mqway supervisor', () => {
  describeWith(['supervisord', 'supervisorctl'], 'under Debian’s supervisord', () => {
    let gateway: ServingProgram
    let supervisord: Supervisord
    beforeAll(async () => {
      gateway = await serving(['--http-port', '0', '--https-port', 'off', '--mqtt-port', '0'], directory)
      const programs = [crashing('cat', 1), crashing('dog', 0), hopeless('cow')]
      supervisord = await startSupervisord({
        args: ['--url', gateway.url('mqtt')],
        events: 'EVENT',
        config: [...programs, talking('talker', script), crashing('chat😀+#', 1)].flat(),
      })
    })
    afterAll(async () => {
      await supervisord?.stop()
      await gateway?.stop('SIGKILL')
    })

    it('tells of an expected exit, an unexpected one and a FATAL, to MQTT and to an event stream', async test => {
      const clients = [
        await listenTo(gateway, 'MQTT over /mqtt', test),
        await listenTo(gateway, 'an event stream', test),
      ]
      await supervisord.control('start', 'cat', 'dog', 'cow')
      for (const client of clients) {
        await eventually(() => statesOf(client, 'cat').at(-1) === 'EXITED')
        await eventually(() => statesOf(client, 'dog').at(-1) === 'EXITED')
        await eventually(() => statesOf(client, 'cow').at(-1) === 'FATAL')
        expect(statesOf(client, 'cat').slice(-5)).toEqual([
          'STARTING',
          'no more STARTING',
          'RUNNING',
          'no more RUNNING',
          'EXITED',
        ])
        const said = (topic: string) =>
          JSON.parse(String(client.events.findLast(event => event.topic === topic)?.payload))
        expect(said('supervisor/cat/cat/EXITED')).toMatchObject({
          expected: false,
          from_state: 'RUNNING',
          pid: expect.any(Number),
        })
        expect(said('supervisor/dog/dog/EXITED')).toMatchObject({ expected: true, from_state: 'RUNNING' })
        expect(said('supervisor/cow/cow/FATAL')).toMatchObject({ from_state: 'BACKOFF', server: 'supervisor' })
      }
      const states = ['supervisor/cat/cat/EXITED', 'supervisor/cow/cow/FATAL', 'supervisor/dog/dog/EXITED']
      expect(await retainedBy(gateway.url('mqtt'), ['cat', 'cow', 'dog'])).toEqual(states)
      // It is there when all that is retained has come.
      const late = await listenTo(gateway, 'an event stream', test)
      expect(late.events.map(({ topic }) => topic)).toEqual(expect.arrayContaining(states))
      expect(late.events.filter(({ topic }) => /cat|cow|dog/.test(topic))).toHaveLength(3)
    })

    it('passes over other events, also with a megabyte and with what is no text', async test => {
      const client = await listenTo(gateway, 'an event stream', test)
      await supervisord.control('start', 'talker')
      await eventually(() => statesOf(client, 'talker').at(-1) === 'EXITED')
      await eventually(() => supervisord.errors().includes('Events PROCESS_COMMUNICATION_STDOUT are not published'))
      expect(supervisord.log()).not.toContain('UNKNOWN')
    })

    it('takes names of any language', async test => {
      const client = await listenTo(gateway, 'an event stream', test)
      await supervisord.control('start', 'chat😀+#:*')
      await eventually(() => client.events.some(({ topic }) => topic === 'supervisor/chat😀%2B%23/chat😀%2B%23/EXITED'))
    })
  })

  describeWith(['supervisord', 'supervisorctl', 'mosquitto'], 'while the broker is down', () => {
    it('has supervisord keep what happens, and send it again', async test => {
      const { port, kill } = await startBroker(test)
      const url = `mqtt://127.0.0.1:${port}`
      const args = ['--url', url, '--timeout', '300ms']
      const supervisord = await startSupervisord({ args, config: crashing('cat', 3) })
      test.onTestFinished(() => supervisord.stop())
      await eventually(() => supervisord.errors().includes('Connected to the broker'))
      await kill()
      const before = Date.now()
      await supervisord.control('start', 'cat')
      await eventually(() => supervisord.log().includes('exited: cat (exit status 3; not expected)'))
      await eventually(() => supervisord.log().includes('rebuffering event'))
      await startBroker(test, undefined, { kind: 'tcp', port })
      const client = await mqtt.connectAsync(url)
      test.onTestFinished(() => client.endAsync())
      const said: { state: string; time: string; expected?: boolean }[] = []
      client.on('message', (_, payload) => payload.length > 0 && said.push(JSON.parse(String(payload))))
      await client.subscribeAsync('supervisor/cat/#')
      await eventually(() => said.at(-1)?.state === 'EXITED')
      expect(said.map(({ state }) => state)).toEqual(['STARTING', 'RUNNING', 'EXITED'])
      expect(said.at(-1)?.expected).toBe(false)
      expect(said.every(({ time }) => Date.parse(time) >= before - 1000)).toBe(true)
    })
  })

  const event = (state: string, serial = 1) => {
    const body = 'processname:a groupname:b from_state:RUNNING expected:0 pid:7'
    return `ver:3.0 server:s serial:${serial} pool:p poolserial:1 eventname:PROCESS_STATE_${state} len:${body.length}\n${body}`
  }

  /** `mqway supervisor`, which a test speaks to in supervisord's place. */
  function started({ onTestFinished }: Test, args: readonly string[], variables: NodeJS.ProcessEnv = {}) {
    const listener = mqway(['supervisor', ...args], directory, variables)
    onTestFinished(() => listener.stop('SIGKILL'))
    return listener
  }

  describeWith(['mosquitto', 'mosquitto_passwd'], 'with mosquitto', () => {
    it('signs in, answers OK once the broker has the message, and ends when supervisord closes its side', async test => {
      const [users, acl, password] = ['users', 'acl', 'password'].map(name => join(directory, name)) as string[]
      await promisify(execFile)('mosquitto_passwd', ['-c', '-b', `${users}`, 'älice', 'right'])
      writeFileSync(`${acl}`, 'user älice\ntopic readwrite web1/#\n')
      writeFileSync(`${password}`, 'right\n')
      const { port } = await startBroker(test, [`password_file ${users}`, `acl_file ${acl}`, 'allow_anonymous false'])
      const url = `mqtt://%C3%A4lice@127.0.0.1:${port}`
      const listener = started(test, ['--url', url, '--topic', 'web1', '--password-file', 'password'])
      const refused = started(test, ['--url', url, '--timeout', '1s'], { MQWAY_SUPERVISOR_PASSWORD: 'right' })
      expect(await listener.line()).toBe('READY')
      for (const part of event('EXITED').match(/.{1,7}/gs) ?? []) listener.child.stdin.write(part)
      expect(await listener.line()).toBe('RESULT 2')
      expect(await listener.line()).toBe('OKREADY')
      const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { username: 'älice', password: 'right' })
      const message = nextMessage(client)
      await client.subscribeAsync('web1/#')
      const { topic, retain, payload } = await message
      expect([topic, retain, JSON.parse(String(payload))]).toMatchObject(['web1/b/a/EXITED', true, { pid: 7 }])
      await client.endAsync()
      listener.child.stdin.end()
      expect(await listener.exited()).toBe(0)

      refused.child.stdin.write(event('EXITED'))
      expect([await refused.line(), await refused.line()]).toEqual(['READY', 'RESULT 4'])
      expect(refused.errors()).toContain('The broker refuses the message')
    })

    it('leaves one state retained also where the broker was started anew, with others of long ago', async test => {
      const { port, kill } = await startBroker(test)
      const url = `mqtt://127.0.0.1:${port}`
      const listener = started(test, ['--url', url])
      listener.child.stdin.write(event('STARTING', 1))
      expect([await listener.line(), await listener.line()]).toEqual(['READY', 'RESULT 2'])
      listener.child.stdin.write(event('RUNNING', 2))
      expect([await listener.line(), await listener.line()]).toEqual(['OKREADY', 'RESULT 2'])
      await kill()
      await startBroker(test, undefined, { kind: 'tcp', port })
      const client = await mqtt.connectAsync(url)
      await client.publishAsync('supervisor/b/a/BACKOFF', 'of long ago', { qos: 1, retain: true })
      await client.endAsync()
      listener.child.stdin.write(event('EXITED', 3))
      expect([await listener.line(), await listener.line()]).toEqual(['OKREADY', 'RESULT 2'])
      expect(await retainedBy(url, ['a'])).toEqual(['supervisor/b/a/EXITED'])
    })
  })

  it('ends with 0 when it is told to, and answers nothing that the broker has not acknowledged', async test => {
    const listener = started(test, ['--url', 'mqtt://127.0.0.1:1'])
    expect(await listener.line()).toBe('READY')
    listener.child.stdin.write(event('EXITED'))
    await eventually(() => listener.errors().includes('The broker is away'))
    const rest = listener.line().catch(() => 'nothing')
    listener.child.kill('SIGTERM')
    expect(await listener.exited()).toBe(0)
    expect(await rest).toBe('nothing')
  })

  it('ends when supervisord is gone, although the broker is away', async test => {
    const listener = started(test, ['--url', 'mqtt://127.0.0.1:1', '--timeout', '1h'])
    listener.child.stdin.write(event('EXITED'))
    await eventually(() => listener.errors().includes('The broker is away'))
    listener.child.stdin.end()
    expect(await listener.exited()).toBe(0)
    expect(listener.errors()).toContain('supervisord has closed its side')
  })

  it('answers FAIL when the broker has not answered in time, and ends when nobody reads that', async test => {
    const listener = started(test, ['--url', 'mqtt://127.0.0.1:1', '--timeout', '100ms'])
    listener.child.stdin.write(event('EXITED'))
    expect([await listener.line(), await listener.line(), await listener.line()]).toEqual([
      'READY',
      'RESULT 4',
      'FAILREADY',
    ])
    listener.child.stdout.destroy()
    listener.child.stdin.write(event('EXITED'))
    expect(await listener.exited()).toBe(0)
    expect(listener.errors()).toContain('cannot write responses to supervisord')
  })

  it.each([
    ['what comes is not of the protocol', 1, [], 'mqway supervisor: a line is not an event: "hello"'],
    ['an option is wrong', 2, ['--timeout', '3'], 'mqway supervisor: --timeout: "3" must be'],
    [
      'a certificate is none',
      69,
      ['--url', 'mqtts://127.0.0.1', '--cert', script, '--key', script],
      `${script}, ${script} cannot be used for TLS`,
    ],
  ] as const)('where %s, ends with %d and says so', async (_, code, args, message) => {
    const listener = mqway(['supervisor', ...args], directory)
    // It may not have waited for it.
    listener.child.stdin.on('error', () => {})
    listener.child.stdin.write('hello\n')
    expect(await listener.exited()).toBe(code)
    expect(listener.errors()).toContain(message)
  })
})
