import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import mqtt from 'mqtt'
import { afterAll, expect, it, onTestFinished, test } from 'vitest'
import { allTransports, type EventClient } from '../helpers/event-clients.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { mqway, serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { type Supervisord, type SupervisordOptions, startSupervisord } from '../helpers/supervisord.js'
import { eventually } from '../helpers/wait.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-supervisor-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** A program that ends with an exit code when it is told to, and is not started again. */
const crashing = (name: string, code: number): string[] => [
  `[program:${name}]`,
  `command=/bin/sh -c "sleep 1.2; exit ${code}"`,
  'autostart=false',
  'autorestart=false',
  'startsecs=1',
]

/** A program that supervisord gives up. */
const hopeless = (name: string): string[] => [
  `[program:${name}]`,
  'command=/bin/false',
  'autostart=false',
  'startretries=0',
]

async function started(options: SupervisordOptions): Promise<Supervisord> {
  const supervisord = await startSupervisord(options)
  onTestFinished(() => supervisord.stop())
  return supervisord
}

/** A gateway as `mqway serve` starts it, which keeps what it has. */
async function startGateway(name: string, port = 0) {
  const flags = [
    '--http-port',
    '0',
    '--https-port',
    'off',
    '--mqtt-port',
    String(port),
    '--data',
    join(directory, name),
  ]
  const gateway = await serving(flags, directory)
  onTestFinished(() => gateway.stop('SIGKILL'))
  return gateway
}

const transport = (name: string) => {
  const listen = allTransports[name]
  if (!listen) throw new Error(`there is no transport ${name}`)
  return listen
}

/** The messages that have come for a process, in words. */
const statesOf = ({ events }: EventClient, process: string): string[] =>
  events
    .filter(({ topic }) => topic.startsWith(`supervisor/${process}/${process}/`))
    .map(({ topic, payload }) => `${payload.length === 0 ? 'no more ' : ''}${topic.split('/').at(-1)}`)

/** The retained messages of processes, when there are at least so many, and those that come soon after. */
async function retainedBy(url: string, count: number): Promise<string[]> {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0 })
  const topics = new Set<string>()
  client.on('message', topic => topics.add(topic))
  const processes = () => [...topics].filter(topic => topic !== 'end' && !topic.includes('mqway')).sort()
  await client.subscribeAsync(['supervisor/#', 'end'])
  await eventually(() => processes().length >= count)
  await client.publishAsync('end', '{}', { qos: 1 })
  await eventually(() => topics.has('end'))
  await client.endAsync()
  return processes()
}

describeWith(['supervisord', 'supervisorctl'], 'mqway supervisor, under Debian’s supervisord', () => {
  it('tells of an expected exit, an unexpected one and a FATAL, to MQTT and to an event stream', async () => {
    const gateway = await startGateway('states')
    const supervisord = await started({
      args: ['--url', gateway.url('mqtt')],
      config: [...crashing('cat', 1), ...crashing('dog', 0), ...hopeless('cow')],
    })
    const urls = { http: gateway.url('http'), https: '' }
    const clients: Record<string, EventClient> = {}
    for (const name of ['MQTT over /mqtt', 'an event stream']) {
      const client = await transport(name)(urls, { topics: ['supervisor/+/+/+'] })
      onTestFinished(() => client.close())
      clients[name] = client
    }
    await supervisord.control('start', 'cat', 'dog', 'cow')
    for (const client of Object.values(clients)) {
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
    expect(await retainedBy(gateway.url('mqtt'), states.length)).toEqual(states)
    // It is there when all that is retained has come.
    const late = await transport('an event stream')(urls, { topics: ['supervisor/+/+/+'] })
    onTestFinished(() => late.close())
    expect(
      late.events
        .map(({ topic }) => topic)
        .filter(topic => !topic.includes('mqway'))
        .sort(),
    ).toEqual(states)
  })

  it('has supervisord keep what happens while the broker is down, and send it again', async () => {
    const gateway = await startGateway('down')
    const supervisord = await started({
      args: ['--url', gateway.url('mqtt'), '--timeout', '300ms'],
      config: crashing('cat', 3),
    })
    await eventually(() => supervisord.errors().includes('connected to the broker'))
    await gateway.stop('SIGKILL')
    const before = Date.now()
    await supervisord.control('start', 'cat')
    await eventually(() => supervisord.log().includes('exited: cat (exit status 3; not expected)'))
    await eventually(() => supervisord.log().includes('rebuffering event'))
    const port = Number(new URL(gateway.url('mqtt')).port)
    const again = await startGateway('down', port)
    const client = await transport('an event stream')(
      { http: again.url('http'), https: '' },
      { topics: ['supervisor/#'] },
    )
    onTestFinished(() => client.close())
    await eventually(() => statesOf(client, 'cat').at(-1) === 'EXITED')
    const states = statesOf(client, 'cat').filter(state => !state.startsWith('no more'))
    expect(states).toEqual(['STARTING', 'RUNNING', 'EXITED'])
    const { time, expected } = JSON.parse(String(client.events.at(-1)?.payload))
    expect(expected).toBe(false)
    expect(Date.parse(time)).toBeGreaterThanOrEqual(before - 1000)
  })

  it('passes over other events, also with a megabyte and with what is no text', async () => {
    const gateway = await startGateway('others')
    const script = [
      'import sys,os,time',
      'b=b"<!--XSUPERVISOR:BEGIN-->"; e=b"<!--XSUPERVISOR:END-->"',
      'w=lambda d: (sys.stdout.buffer.write(b+d+e), sys.stdout.flush())',
      String.raw`w(b'"q" \\ \n </script> \xf0\x9f\x98\x80'); w(bytes(range(256))); w(b"\xc3\xa9"*300000)`,
      'time.sleep(1.2)',
    ]
    const file = join(directory, 'talk.py')
    writeFileSync(file, script.join('\n'))
    const supervisord = await started({
      args: ['--url', gateway.url('mqtt')],
      events: 'EVENT',
      config: [
        '[program:talker]',
        `command=/usr/bin/python3 ${file}`,
        'autostart=false',
        'autorestart=false',
        'stdout_capture_maxbytes=2MB',
        'stdout_events_enabled=true',
      ],
    })
    const client = await transport('an event stream')(
      { http: gateway.url('http'), https: '' },
      { topics: ['supervisor/#'] },
    )
    onTestFinished(() => client.close())
    await supervisord.control('start', 'talker')
    await eventually(() => statesOf(client, 'talker').at(-1) === 'EXITED')
    expect(supervisord.errors()).toContain('events PROCESS_COMMUNICATION_STDOUT are not published')
    expect(supervisord.log()).not.toContain('UNKNOWN')
  })

  it('takes names of any language', async () => {
    const gateway = await startGateway('names')
    const supervisord = await started({ args: ['--url', gateway.url('mqtt')], config: crashing('chat😀+#', 1) })
    const client = await transport('an event stream')(
      { http: gateway.url('http'), https: '' },
      { topics: ['supervisor/#'] },
    )
    onTestFinished(() => client.close())
    await supervisord.control('start', 'chat😀+#:*')
    await eventually(() => client.events.some(({ topic }) => topic === 'supervisor/chat😀%2B%23/chat😀%2B%23/EXITED'))
  })
})

describeWith(['mosquitto', 'mosquitto_passwd'], 'mqway supervisor', () => {
  const header = (name: string, body: string) =>
    `ver:3.0 server:s serial:1 pool:p poolserial:1 eventname:${name} len:${body.length}\n${body}`
  const exited = header('PROCESS_STATE_EXITED', 'processname:a groupname:b from_state:RUNNING expected:0 pid:7')

  it('answers OK once the broker has the message, and ends when supervisord closes its side', async () => {
    const mosquitto = await startMosquitto()
    onTestFinished(() => mosquitto.stop())
    const listener = mqway(['supervisor', '--url', `mqtt://127.0.0.1:${mosquitto.port}`, '--topic', 'web1'], directory)
    expect(await listener.line()).toBe('READY')
    for (const part of exited.match(/.{1,7}/gs) ?? []) listener.child.stdin.write(part)
    expect(await listener.line()).toBe('RESULT 2')
    expect(await listener.line()).toBe('OKREADY')
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${mosquitto.port}`)
    const message = nextMessage(client)
    await client.subscribeAsync('web1/#')
    const { topic, retain, payload } = await message
    expect([topic, retain, JSON.parse(String(payload))]).toMatchObject(['web1/b/a/EXITED', true, { pid: 7 }])
    await client.endAsync()
    listener.child.stdin.end()
    expect(await listener.exited()).toBe(0)
  })

  it.each([
    ['a file', ['--password-file', 'password'], {}],
    ['a variable', [], { MQWAY_SUPERVISOR_PASSWORD: 'right' }],
  ])('signs in with the user name of the URL and a password from %s', async (_, args, variables) => {
    writeFileSync(join(directory, 'password'), 'right\n')
    const users = join(directory, 'users')
    await promisify(execFile)('mosquitto_passwd', ['-c', '-b', users, 'älice', 'right'])
    const mosquitto = await startMosquitto(undefined, [`password_file ${users}`, 'allow_anonymous false'])
    onTestFinished(() => mosquitto.stop())
    const url = `mqtt://%C3%A4lice@127.0.0.1:${mosquitto.port}`
    const listener = mqway(['supervisor', '--url', url, ...args], directory, variables)
    onTestFinished(() => listener.stop())
    listener.child.stdin.write(exited)
    expect([await listener.line(), await listener.line()]).toEqual(['READY', 'RESULT 2'])
  })

  it('has supervisord keep what the broker refuses', async () => {
    const acl = join(directory, 'acl')
    writeFileSync(acl, 'topic write other/#\n')
    const mosquitto = await startMosquitto(undefined, ['allow_anonymous true', `acl_file ${acl}`])
    onTestFinished(() => mosquitto.stop())
    const url = `mqtt://127.0.0.1:${mosquitto.port}`
    const listener = mqway(['supervisor', '--url', url, '--timeout', '2s'], directory)
    onTestFinished(() => listener.stop())
    listener.child.stdin.write(exited)
    expect([await listener.line(), await listener.line()]).toEqual(['READY', 'RESULT 4'])
    expect(listener.errors()).toContain('the broker refuses the message')
  })

  it('ends with 0 when it is told to, and answers nothing that the broker has not acknowledged', async () => {
    const listener = mqway(['supervisor', '--url', 'mqtt://127.0.0.1:1'], directory)
    expect(await listener.line()).toBe('READY')
    listener.child.stdin.write(exited)
    await eventually(() => listener.errors().includes('the broker is away'))
    const rest = listener.line().catch(() => 'nothing')
    listener.child.kill('SIGTERM')
    expect(await listener.exited()).toBe(0)
    expect(await rest).toBe('nothing')
  })

  it('answers FAIL when the broker has not answered in time', async () => {
    const listener = mqway(['supervisor', '--url', 'mqtt://127.0.0.1:1', '--timeout', '100ms'], directory)
    onTestFinished(() => listener.stop())
    listener.child.stdin.write(exited)
    expect([await listener.line(), await listener.line(), await listener.line()]).toEqual([
      'READY',
      'RESULT 4',
      'FAILREADY',
    ])
  })

  it('ends with 1 when what comes is not of the protocol', async () => {
    const listener = mqway(['supervisor', '--url', 'mqtt://127.0.0.1:1'], directory)
    listener.child.stdin.write('hello\n')
    expect(await listener.exited()).toBe(1)
    expect(listener.errors()).toContain('a line is no event: "hello"')
  })
})

test.each([
  [
    ['--url', 'mqtt://alice:secret@broker'],
    '--url: must be without a password; use --password-file or MQWAY_SUPERVISOR_PASSWORD',
  ],
  [
    ['--url', 'http://broker'],
    '--url: must be mqtt://[user@]host:port, mqtts://[user@]host:port or unix:/path/to/socket',
  ],
  [['--password', 'x'], '--password: is not an option; use --password-file or MQWAY_SUPERVISOR_PASSWORD'],
  [['--password-file', '/dev/null/x', '--url', 'mqtt://a@b'], '--password-file: ENOTDIR'],
  [['--topic', 'a/#'], '--topic: "a/#" must be a topic, without +, # and $'],
  [['--timeout', '3'], '--timeout: "3" must be a time such as 10s or 1m, up to 1h'],
  [['--tmeout', '3s'], '--tmeout: is not an option; did you mean --timeout?'],
  [['cat'], 'cat: is not expected here; options begin with --'],
])('mqway supervisor %j is refused', async (args, message) => {
  const listener = mqway(['supervisor', ...args], directory)
  listener.child.stdin.end()
  expect(await listener.exited()).toBe(2)
  expect(listener.errors()).toContain(`mqway supervisor: ${message}`)
  expect(listener.errors()).not.toContain('secret@')
})
