import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { pushTransports } from '../../helpers/event-clients.js'
import { run } from '../../helpers/processes.js'
import { serving } from '../../helpers/program.js'
import { describeWith } from '../../helpers/requires.js'
import { startSupervisord } from '../../helpers/supervisord.js'
import { eventually } from '../../helpers/wait.js'
import { startMailServer } from './mail-server.js'
import { makeCertificate } from './rig.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-crash-mail-'))
afterAll(() => rmSync(directory, { recursive: true }))

const supervisord = readFileSync(new URL('../../../docs/supervisord.md', import.meta.url), 'utf8')

/** The configuration of the recipe in docs/supervisord.md, with the mail server of this test. */
function recipe(port: number, ca: string): string {
  const [, text = ''] = /\n## A mail when a program crashes\n[\s\S]*?```yaml\n([\s\S]*?)```/.exec(supervisord) ?? []
  const { notify } = parse(text)
  const smtp = { ...notify.mail.smtp, url: `smtp://127.0.0.1:${port}`, username: 'mqway', password: 'right', ca }
  const rules = notify.rules.map((rule: object) => ({ ...rule, collect: '100ms' }))
  return JSON.stringify({ notify: { mail: { ...notify.mail, smtp }, rules } })
}

const flags = ['--http-port', '0', '--https-port', 'off', '--mqtt-port', '0']

const program = fileURLToPath(new URL('../../../dist/cli.js', import.meta.url))
const example = fileURLToPath(new URL('../../../examples/supervisord', import.meta.url))

// supervisord looks once a second: they wait together.
describe.concurrent('crashes', () => {
  describeWith(['supervisord', 'supervisorctl', 'openssl', 'python3-aiosmtpd'], 'a program that crashes', () => {
    it('is a mail, a retained message and a push, and an expected exit is no mail', async ({ onTestFinished }) => {
      const place = mkdtempSync(join(directory, 'recipe-'))
      const files = makeCertificate(place)
      const server = await startMailServer(files)
      onTestFinished(() => server.stop())
      writeFileSync(join(place, 'mqway.yaml'), recipe(server.port, files.cert))
      const gateway = await serving(flags, place)
      onTestFinished(() => gateway.stop())
      const urls = { http: gateway.url('http'), https: '' }
      const listen = pushTransports['an event stream']
      const stream = await listen?.(urls, { topics: ['supervisor/+/+/EXITED'] })
      onTestFinished(() => stream?.close())
      const program = (name: string, code: number) => [
        `[program:${name}]`,
        `command=/bin/sh -c "exit ${code}"`,
        'autostart=false',
        'autorestart=false',
        'startsecs=0',
      ]
      const supervisord = await startSupervisord({
        args: ['--url', gateway.url('mqtt')],
        config: [
          ...program('dog', 0),
          ...program('cat', 1),
          '[program:cow]',
          'command=/bin/false',
          'autostart=false',
          'startretries=0',
        ],
      })
      onTestFinished(() => supervisord.stop())
      await supervisord.control('start', 'dog', 'cat', 'cow')
      const subjects = () => server.mails.map(({ headers }) => headers.get('subject') ?? '')
      const has = (text: string) => subjects().some(subject => subject.includes(text))
      await eventually(() => has('cat crashed at') && has('cow could not be started'))
      const crash = server.mails.find(({ text }) => text.includes('Process cat'))
      expect(crash).toMatchObject({ user: 'mqway', tls: true })
      expect(crash?.text).toMatch(/Process cat in group cat exited unexpectedly \(pid \d+\) from state RUNNING/)
      await eventually(() => stream?.events.filter(({ payload }) => payload.length > 0).length === 2)
      expect(has('dog')).toBe(false)
      expect(server.mails.map(({ text }) => text).join()).not.toContain('Process dog')
      const retained = await listen?.(urls, { topics: ['supervisor/cat/#'] })
      onTestFinished(() => retained?.close())
      expect(retained?.events.map(({ topic }) => topic)).toEqual(['supervisor/cat/cat/EXITED'])
      for (let sent = 0; sent < 2; sent++) await gateway.logged('Sent a mail')
      const metrics = await (await fetch(`${gateway.url('http')}/metrics`)).text()
      expect(metrics).toContain('\nmqway_mails_sent_total 2\n')
    })

    it('is a mail also when the mail server is down and mqway is started anew meanwhile', async ({
      onTestFinished,
    }) => {
      const place = mkdtempSync(join(directory, 'again-'))
      const files = makeCertificate(place)
      const first = await startMailServer(files)
      await first.stop()
      writeFileSync(join(place, 'mqway.yaml'), recipe(first.port, files.cert))
      const gateway = await serving(flags, place)
      onTestFinished(() => gateway.stop())
      const said = {
        processname: 'cat',
        groupname: 'cat',
        state: 'EXITED',
        from_state: 'RUNNING',
        expected: false,
        pid: 1,
      }
      await fetch(`${gateway.url('http')}/v1/publish?topic=supervisor/cat/cat/EXITED&qos=1`, {
        method: 'POST',
        body: JSON.stringify({ ...said, eventname: 'PROCESS_STATE_EXITED' }),
      })
      await gateway.logged('Failed to send a mail')
      await gateway.stop('SIGKILL')
      const server = await startMailServer({ ...files, port: first.port })
      onTestFinished(() => server.stop())
      const again = await serving(flags, place)
      onTestFinished(() => again.stop())
      // The log may say so before it says that mqway is ready.
      await eventually(() => server.mails.length === 1)
      expect(server.mails[0]?.headers.get('subject')).toMatch(/^web1: cat crashed at /)
    })
  })

  describeWith(['supervisord'], 'the example', () => {
    it('has mails of a program that crashes and of one that never runs', async ({ onTestFinished }) => {
      const place = mkdtempSync(join(directory, 'example-'))
      cpSync(example, join(place, 'examples/supervisord'), { recursive: true })
      const config = readFileSync(join(example, 'mqway.yaml'), 'utf8')
      const rules = parse(config).notify.rules.map((rule: object) => ({ ...rule, collect: '100ms' }))
      const { mail } = parse(config).notify
      writeFileSync(join(place, 'mqway.yaml'), JSON.stringify({ notify: { mail, rules } }))
      const gateway = await serving(flags, place)
      onTestFinished(() => gateway.stop())
      const file = join(place, 'examples/supervisord/supervisord.conf')
      const supervised = readFileSync(file, 'utf8')
        .replace('node %(here)s/../../dist/cli.js', `${process.execPath} ${program}`)
        .replace('mqtt://127.0.0.1:1883', gateway.url('mqtt'))
        .replace('sleep 5', 'sleep 1.2')
      writeFileSync(file, supervised)
      const supervisord = run('supervisord', ['-c', file], { cwd: place })
      onTestFinished(() => supervisord.stop())
      const mails = () => (existsSync(join(place, 'mails.txt')) ? readFileSync(join(place, 'mails.txt'), 'utf8') : '')
      await eventually(() => /^Subject: web1: cat crashed at /m.test(mails()))
      await eventually(() => /^Subject: web1: cow could not be started at /m.test(mails()))
    })
  })
})
