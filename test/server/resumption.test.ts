import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect, type SecureVersion, type TLSSocket } from 'node:tls'
import { beforeEach, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { received, temporaryDirectory } from './rig.js'

let people: People
let gateway: TestGateway

async function start(config: ConfigInput = { access: people.access }): Promise<void> {
  const own = await startTestGateway(config)
  onTestFinished(() => own.close())
  gateway = own
}

interface Visit {
  readonly status: number
  readonly resumed: boolean
  /** What the next visit can begin with, as far as the gateway gave something. */
  readonly sessions: readonly Buffer[]
}

/** Asks for a ticket with alice's certificate, on a connection of its own. */
async function visit(maxVersion: SecureVersion, session?: Buffer): Promise<Visit> {
  const sessions: Buffer[] = []
  const socket: TLSSocket = connect({
    port: Number(new URL(gateway.urls.https).port),
    rejectUnauthorized: false,
    maxVersion,
    ...people.certificate('alice'),
    ...(session && { session }),
  })
  onTestFinished(() => void socket.destroy())
  socket.on('session', given => sessions.push(given))
  await once(socket, 'secureConnect')
  const resumed = socket.isSessionReused()
  socket.write('POST /v1/tickets HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
  const answer = await received(socket)
  return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]), resumed, sessions }
}

describeWith('openssl', 'a client certificate that was shown once', () => {
  beforeEach(async () => {
    people = await People.start()
    return () => people.stop()
  })

  it('is judged anew on each connection, with TLS 1.2 and with TLS 1.3', async () => {
    people.issueRevocations(8)
    await start()
    const firsts = await Promise.all(
      (['TLSv1.2', 'TLSv1.3'] as const).map(async version => ({ version, first: await visit(version) })),
    )
    for (const { first } of firsts) expect(first).toMatchObject({ status: 201, resumed: false })
    // The list of revocations is too old from here on, so that nobody knows who is on it.
    await people.revocationsExpired()
    for (const { version, first } of firsts) {
      const again = await Promise.all([undefined, ...first.sessions].map(session => visit(version, session)))
      expect(again.map(({ status, resumed }) => [status, resumed])).toEqual(again.map(() => [401, false]))
    }
  })

  it.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'resumes no session from before certificates were asked for, with %s',
    async version => {
      const data = await temporaryDirectory()
      const common = { data, push: 'off' } as const
      await start(common)
      const first = await visit(version)
      expect(first.sessions).not.toEqual([])
      await gateway.close()
      await start({ ...common, access: people.access })
      const again = await Promise.all(first.sessions.map(session => visit(version, session)))
      expect(again.map(({ status, resumed }) => [status, resumed])).toEqual(again.map(() => [201, false]))
    },
  )

  it('leaves no key of session tickets on disk', async () => {
    const data = await temporaryDirectory()
    await start({ data, push: 'off', access: people.access })
    expect(readdirSync(data)).not.toContain('tls')
    await start({ data: `${data}/other`, push: 'off' })
    expect(readdirSync(`${data}/other`)).toContain('tls')
  })

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('counts no more once it is revoked, with %s', async version => {
    await start()
    const first = await visit(version)
    expect(first).toMatchObject({ status: 201, resumed: false })
    people.revoke('alice')
    await gateway.gateway.reload()
    const again = await Promise.all([undefined, ...first.sessions].map(session => visit(version, session)))
    expect(again.map(({ status, resumed }) => [status, resumed])).toEqual(again.map(() => [401, false]))
  })
})
