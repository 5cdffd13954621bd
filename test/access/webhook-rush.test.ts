import { once } from 'node:events'
import http from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { generate } from 'mqtt-packet'
import { it, onTestFinished } from 'vitest'
import { startTestGateway } from '../helpers/gateway.js'

/** How long the webhook takes for an answer, and how long a device waits for its CONNACK before it tries anew, in milliseconds. */
const [takes, patience] = [300, 1000]
const devices = 60

it('devices that give up sooner than the webhook could answer all of them get in, some at a time', {
  timeout: 60_000,
}, async () => {
  const hook = http.createServer((request, response) => {
    request.resume()
    setTimeout(() => response.end(JSON.stringify({ allow: true, user: 'device' })), takes)
  })
  await once(hook.listen(0, '127.0.0.1'), 'listening')
  const { port } = hook.address() as AddressInfo
  const gateway = await startTestGateway({
    https: { port: 'off' },
    access: { webhook: { url: `http://127.0.0.1:${port}/` } },
  })
  onTestFinished(async () => {
    await gateway.close()
    hook.closeAllConnections()
    hook.close()
  })
  let open = true
  /** Whether the device got in; if not, it has left. */
  const attempt = (clientId: string): Promise<boolean> =>
    new Promise(resolve => {
      const socket = connect(gateway.mqttPort, '127.0.0.1')
      const end = (isIn: boolean): void => {
        clearTimeout(timer)
        if (!isIn) socket.destroy()
        resolve(isIn)
      }
      const timer = setTimeout(() => end(false), patience)
      socket.on('error', () => {})
      socket.once('close', () => end(false))
      socket.once('data', bytes => end(bytes[3] === 0))
      const login = { username: clientId, password: Buffer.from('x') }
      socket.write(generate({ cmd: 'connect', clientId, clean: true, keepalive: 0, ...login }))
      onTestFinished(() => void socket.destroy())
    })
  const untilIn = async (clientId: string): Promise<void> => {
    while (open && !(await attempt(clientId))) await new Promise(resolve => setTimeout(resolve, 20))
  }
  onTestFinished(() => {
    open = false
  })
  await Promise.all(Array.from({ length: devices }, (_, index) => untilIn(`device-${index}`)))
  // Ten are asked for at a time: where those who have left are asked for as well, the last ones never get in.
})
