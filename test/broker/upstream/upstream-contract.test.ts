import { rmSync } from 'node:fs'
import { afterAll, describe } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createUpstream, type UpstreamOptions } from '../../../src/broker/upstream/upstream.js'
import { describeBroker } from '../../contracts/broker.js'
import { type Mosquitto, type MosquittoListener, startMosquitto } from '../../helpers/mosquitto.js'
import { describeWith } from '../../helpers/requires.js'
import { makeCertificates } from './certificates.js'

const log = createLog({ level: 'silent', format: 'json' })

function describeMosquitto(
  listener: () => MosquittoListener,
  options: (mosquitto: Mosquitto) => Partial<UpstreamOptions>,
): void {
  describeBroker(
    async () => {
      const mosquitto = await startMosquitto(listener(), ['allow_anonymous true', 'max_queued_messages 10000'])
      const broker = createUpstream(
        { url: '', balance: 'failover', connectTimeout: 5000, proxyProtocol: 'off', ...options(mosquitto) },
        log,
      )
      return { broker, kill: () => mosquitto.kill(), dispose: () => mosquitto.stop() }
    },
    { beKilled: true },
  )
}

describeWith('mosquitto', 'mosquitto over TCP', () => {
  describeMosquitto(
    () => ({ kind: 'tcp' }),
    ({ port }) => ({ url: `mqtt://127.0.0.1:${port}` }),
  )
})

describeWith('mosquitto', 'mosquitto on a Unix socket', () => {
  describeMosquitto(
    () => ({ kind: 'unix' }),
    ({ path }) => ({ url: `unix:${path}` }),
  )
})

describeWith(['mosquitto', 'openssl'], 'mosquitto over TLS, with client certificates', () => {
  let certificates: ReturnType<typeof makeCertificates> | undefined
  const made = (): ReturnType<typeof makeCertificates> => {
    certificates ??= makeCertificates()
    return certificates
  }
  describe('and a server name', () => {
    describeMosquitto(
      () => ({ kind: 'tls', ...made().server, clientCa: made().ca }),
      ({ port }) => ({
        url: `mqtts://127.0.0.1:${port}`,
        ca: made().ca,
        ...made().client,
        servername: 'broker.test',
      }),
    )
  })
  afterAll(() => {
    if (certificates) rmSync(certificates.directory, { recursive: true })
  })
})
