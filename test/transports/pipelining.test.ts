import { once } from 'node:events'
import { afterEach, expect, it } from 'vitest'
import { registerPoll } from '../../src/transports/poll.js'
import { eventually } from '../helpers/wait.js'
import { type Rig, startRig } from './rig.js'

let rig: Rig
afterEach(() => rig.close())

it('polls that wait behind another one on their connection end with it', async () => {
  rig = await startRig({ register: registerPoll })
  const socket = rig.tcp()
  await once(socket, 'connect')
  socket.write('GET /v1/poll?topic=a&timeout=60&device=d HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(20))
  await eventually(() => rig.hub.counters.subscribers === 20)
  expect(rig.limits.open).toBe(20)
  socket.destroy()
  await eventually(() => rig.hub.counters.subscribers === 0)
  expect([rig.limits.open, rig.attendances.every(({ left }) => left)]).toEqual([0, true])
})
