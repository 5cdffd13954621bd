import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { terminalPrograms } from '../../public/terminal-commands.js'
import { startTestGateway } from '../helpers/gateway.js'
import { run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'

const repository = new URL('../..', import.meta.url).pathname
const interpreters: Record<string, readonly string[]> = {
  mosquitto: ['sh', '-c'],
  Python: ['/usr/bin/python3', '-u', '-c'],
  'Node.js': [process.execPath, '--input-type=module', '-e'],
}

/** Starts the snippets of one program as they are shown, but for what a test cannot have: port 1883 and `certs/`. */
async function tryProgram(name: string): Promise<void> {
  const gateway = await startTestGateway()
  onTestFinished(() => gateway.close())
  const { host } = new URL(gateway.urls.https)
  const place = {
    hostname: '127.0.0.1',
    url: `wss://127.0.0.1:${host.split(':')[1]}/mqtt`,
    path: '/mqtt',
    topic: '/news/europe/sport',
    payload: "it's a message",
    filter: '/news/#',
  }
  const forThisGateway = (code: string): string =>
    code
      .replaceAll('1883', String(gateway.mqttPort))
      .replaceAll('certs/localhost.crt', join(gateway.directory, 'certs/localhost.crt'))
      // In the place of the shell: to stop that would leave it running.
      .replaceAll(/(mosquitto_\w+)/g, `exec $1 -h 127.0.0.1 -p ${gateway.mqttPort}`)
  const [publish] = terminalPrograms(place)[0]?.snippets ?? []
  const start = (interpreter: string, code: string) => {
    const [command = '', ...args] = interpreters[interpreter] ?? []
    const program = run(command, [...args, forThisGateway(code)], { cwd: repository })
    onTestFinished(() => program.stop())
    return program
  }
  // Retained, so that each subscriber hears it whenever it comes.
  expect(await start('mosquitto', `${publish?.code} -r`).exited()).toBe(0)

  const snippets = terminalPrograms(place).find(program => program.name === name)?.snippets ?? []
  for (const { label, code } of snippets) {
    if (label === 'Publish') continue
    expect(await start(name, code).line(), `${name}: ${label}`).toMatch(/^\/news\/europe\/sport .*it's a message$/)
  }
}

describeWith(['mosquitto_pub', 'mosquitto_sub'], 'what the page suggests for a terminal', () => {
  it.each(['mosquitto', 'Node.js'])('runs: %s', tryProgram)
})

describeWith(['mosquitto_pub', 'python3-paho-mqtt'], 'what it suggests for Python', () => {
  it('runs', () => tryProgram('Python'))
})
