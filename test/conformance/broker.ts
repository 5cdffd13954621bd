import { afterAll, beforeAll, expect } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { Client } from './client.js'
import type { ConnectOptions } from './packets.js'

/** Port of another broker to judge instead of the built-in one: it shows that a test is right. */
export const otherBroker = Number(process.env['CONFORMANCE_PORT'] ?? 0)

/** The broker of a test file. */
export interface TestedBroker {
  port(): number
  gateway(): TestGateway
  /** An open connection, without CONNECT; it is closed at the end. */
  open(): Promise<Client>
  /** A connected client. */
  connect(options?: ConnectOptions): Promise<Client>
}

/** Starts the gateway of a test file, with access to everything, before its tests; closes it after them. */
export function testedBroker(config: ConfigInput = {}): TestedBroker {
  let gateway: TestGateway | undefined
  const clients: Client[] = []
  beforeAll(async () => {
    if (otherBroker > 0) return
    gateway = await startTestGateway({
      https: { port: 'off' },
      limits: { upgradesPerSecond: 'off' },
      // Sessions of clients without a name are kept, too.
      embedded: { maxAnonymousSessions: 1000 },
      ...config,
    })
  })
  afterAll(async () => {
    for (const client of clients) client.destroy()
    await gateway?.close()
  })
  const port = (): number => gateway?.mqttPort ?? otherBroker
  const open = async (): Promise<Client> => {
    const client = await Client.open(port())
    clients.push(client)
    return client
  }
  return {
    port,
    gateway: () => gateway as TestGateway,
    open,
    connect: async options => {
      const client = await open()
      const { code } = await client.connect(options)
      if (code !== 0) throw new Error(`CONNACK 0x${code.toString(16)}`)
      return client
    },
  }
}

/** Waits for the end of a connection, with one of the reason codes; another broker may give none, as the specification allows. */
export async function expectRefusal(client: Client, ...codes: number[]): Promise<void> {
  const code = await client.refused()
  if (otherBroker === 0 || code !== undefined) expect(code).toBeOneOf(codes)
}
