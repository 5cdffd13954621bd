import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Webhook } from 'standardwebhooks'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { type RunningProgram, run } from '../helpers/processes.js'
import { serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'

const example = (name: string) => fileURLToPath(new URL(`../../examples/webhook/${name}`, import.meta.url))
const flags = ['--http-port', '0', '--https-port', 'off', '--mqtt-port', 'off']

/** A directory with a secret, made by the command of the README. */
function placeWithSecret(): string {
  const place = mkdtempSync(join(tmpdir(), 'mqway-webhook-'))
  const [, command = ''] = /\n(\(umask .*)\n/.exec(readFileSync(example('README.md'), 'utf8')) ?? []
  execFileSync('sh', ['-c', command], { cwd: place })
  return place
}

/** The configuration of the example, with the receiver of this test. */
function config(url: string): string {
  const { notify } = parse(readFileSync(example('mqway.yaml'), 'utf8'))
  const rules = notify.rules.map((rule: { webhook: object }) => ({ ...rule, webhook: { ...rule.webhook, url } }))
  return JSON.stringify({ notify: { rules } })
}

// They are started together: each takes most of a second to begin.
describe.concurrent('receivers', () => {
  describeWith(['openssl', '/usr/bin/python3'], 'the receiver of the example', () => {
    it.each([
      ['Node', process.execPath, 'receiver.js'],
      ['Python', '/usr/bin/python3', 'receiver.py'],
    ])(
      'in %s gets what is published, also after a kill of mqway while it is away, and nothing that is forged',
      async (_, command, file) => {
        const place = placeWithSecret()
        const running: { stop(): Promise<void> }[] = []
        const started = <T extends { stop(): Promise<void> }>(one: T): T => {
          running.push(one)
          return one
        }
        const receive = (port: string): RunningProgram =>
          started(run(command, [example(file), 'webhook.secret', port], { cwd: place }))
        try {
          const first = receive('0')
          const url = await first.line()
          writeFileSync(join(place, 'mqway.yaml'), config(url))
          const gateway = started(await serving(flags, place))
          const publish = (payload: string) =>
            fetch(`${gateway.url('http')}/v1/publish?topic=orders/1`, { method: 'POST', body: payload })
          await publish('two äpples')
          expect(await first.line()).toBe('orders/1 two äpples')
          const events = await (await fetch(url)).json()
          expect(events).toEqual([expect.objectContaining({ topic: 'orders/1', payload: 'two äpples' })])

          const secret = readFileSync(join(place, 'webhook.secret'), 'utf8').trim()
          const call = (signedAt: Date, key: string, id = 'msg_1'): Promise<number> => {
            const body = JSON.stringify({ rule: 'x', events: [{ topic: 'forged', payload: id }] })
            const headers = {
              'webhook-id': id,
              'webhook-timestamp': String(Math.floor(signedAt.getTime() / 1000)),
              'webhook-signature': `v1,AAAA ${new Webhook(key).sign(id, signedAt, body)}`,
            }
            return fetch(url, { method: 'POST', headers, body }).then(({ status }) => status)
          }
          const now = new Date()
          expect(await call(now, Buffer.alloc(32).toString('base64'))).toBe(401)
          expect(await call(new Date(now.getTime() - 400_000), secret)).toBe(401)
          expect(await fetch(url, { method: 'POST', body: '{}' }).then(({ status }) => status)).toBe(401)
          expect(await call(now, secret)).toBe(204)
          expect(await call(now, secret)).toBe(204)
          expect(await first.line()).toBe('forged msg_1')

          await first.stop()
          await publish('three')
          await gateway.logged('Failed to send a webhook call')
          await publish('four')
          await gateway.stop('SIGKILL')
          const second = receive(new URL(url).port)
          await second.line()
          started(await serving(flags, place))
          expect(await second.line()).toBe('orders/1 three')
          expect(await second.line()).toBe('orders/1 four')
          expect(first.errors() + second.errors()).toBe('')
        } finally {
          for (const one of running.reverse()) await one.stop()
          rmSync(place, { recursive: true })
        }
      },
    )
  })
})
