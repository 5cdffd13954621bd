import { expect, it, onTestFinished } from 'vitest'
import type { ClientDirectory } from '../../src/base/client-directory.js'
import { registerClients } from '../../src/transports/clients.js'
import { startRig } from './rig.js'

it.each([
  { isIncomplete: false, expected: 404 },
  { isIncomplete: true, expected: 503 },
])('a client that is not found is absent only if all workers have answered: $expected', async options => {
  const { isIncomplete, expected } = options
  const clients: ClientDirectory = {
    list: async () => ({ connected: 0, clients: [], positions: [], next: undefined, isIncomplete }),
    find: async () => ({ clients: [], isIncomplete }),
    end: async () => ({ clients: [], isIncomplete }),
  }
  const rig = await startRig({
    register: (app, transport) =>
      registerClients(app, {
        ...transport,
        ...{ clients, requireAdmin: () => {}, requiresUser: false, endSession: undefined },
      }),
  })
  onTestFinished(() => rig.close())
  const statusOf = async (method: string, path: string) =>
    (await fetch(`${rig.url}/v1/clients${path}`, { method })).status
  expect(await statusOf('GET', '/a')).toBe(expected)
  expect(await statusOf('DELETE', '/a')).toBe(expected)
  expect(await statusOf('DELETE', '?connection=c')).toBe(expected)
})
