import { expect, it, onTestFinished } from 'vitest'
import { startCuttingProxy } from '../helpers/cutting-proxy.js'
import type { ServingProgram } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { startSharedGateways } from '../helpers/shared-gateways.js'
import { eventually } from '../helpers/wait.js'
import { startMailServer } from '../integrations/notify/mail-server.js'
import { makeCertificate } from '../integrations/notify/rig.js'

const programs = ['redis-server', 'mosquitto', 'openssl', 'python3-aiosmtpd']

describeWith(programs, 'several gateways send a mail once', () => {
  const setUp = async () => {
    const shared = await startSharedGateways()
    const files = makeCertificate(shared.directory)
    const server = await startMailServer(files)
    onTestFinished(() => server.stop())
    const smtp = { url: `smtp://127.0.0.1:${server.port}`, username: 'mqway', password: 'right', ca: files.cert }
    const rules = [{ topics: ['alert'], to: ['ops@example.org'], collect: '0ms', text: '{payload}' }]
    const notify = { mail: { from: 'mqway@example.org', smtp }, rules }
    return {
      ...{ shared, server },
      start: (redisUrl = shared.redis.url) => shared.start({ redisUrl, more: { notify } }),
      texts: () => server.mails.map(({ text }) => text.trim()),
      /** Resolves when so many mails have been sent, and Redis has none to send. */
      sent: (count: number) =>
        eventually(async () => {
          const fields = await shared.redis.client.hkeys('mqway:notify')
          return server.mails.length >= count && !fields.some(field => field.startsWith(':mail/'))
        }),
      coordinator: () => shared.redis.client.get('mqway:coordinator'),
    }
  }
  const publish = async (program: ServingProgram, body: string): Promise<void> => {
    const send = () => fetch(`${program.url('http')}/v1/publish?topic=alert`, { method: 'POST', body })
    await eventually(async () => (await send()).status === 201)
  }

  for (const [name, end, resume] of [
    ['is killed', (program: ServingProgram) => program.stop('SIGKILL')],
    ['ends', (program: ServingProgram) => program.stop('SIGTERM')],
    [
      'is stopped for a while',
      (program: ServingProgram) => program.child.kill('SIGSTOP'),
      (program: ServingProgram) => program.child.kill('SIGCONT'),
    ],
  ] as const) {
    it(`also when the one that sends them ${name}`, async () => {
      const { start, texts, sent, coordinator } = await setUp()
      const a = await start()
      await eventually(async () => (await coordinator()) !== null)
      const b = await start()
      await publish(b, 'first')
      await sent(1)
      await end(a)
      await publish(b, 'second')
      await b.logged('this gateway sends the mails')
      await sent(2)
      resume?.(a)
      await publish(b, 'third')
      await sent(3)
      expect(texts()).toEqual(['first', 'second', 'third'])
    }, 30_000)
  }

  it('also when the one that sends them is cut off from Redis, or Redis has lost everything', async () => {
    const { shared, start, texts, sent, coordinator } = await setUp()
    const cut = await startCuttingProxy(() => shared.redisPort)
    await start(`redis://127.0.0.1:${cut.port}`)
    await eventually(async () => (await coordinator()) !== null)
    const b = await start()
    await publish(b, 'first')
    await sent(1)
    await cut.close()
    await publish(b, 'second')
    await b.logged('this gateway sends the mails')
    await sent(2)
    await shared.redis.client.flushall()
    await b.logged('this gateway sends the mails')
    await publish(b, 'third')
    await sent(3)
    expect(texts()).toEqual(['first', 'second', 'third'])
  }, 30_000)
})
