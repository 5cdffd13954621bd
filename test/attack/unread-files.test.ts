import { readdir, readlink } from 'node:fs/promises'
import { describe, it, onTestFinished } from 'vitest'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { eventually } from '../helpers/wait.js'
import { readNothing } from './scenarios/http2.js'
import { boundSince } from './scheduling.js'

/** Descriptors of a process that are open for files of this name. */
async function openFiles(pid: number, name: string): Promise<number> {
  const directory = `/proc/${pid}/fd`
  const links = (await readdir(directory)).map(fd => readlink(`${directory}/${fd}`).catch(() => ''))
  return (await Promise.all(links)).filter(link => link.endsWith(name)).length
}

describe('files that clients of HTTP/2 ask for and do not read', () => {
  it('are closed when the clients have left', async () => {
    const gateway = await startAttackedGateway({ data: 'none', https: { host: '127.0.0.1', port: 0 } })
    onTestFinished(() => gateway.close())
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    const began = await gateway.scheduling()
    const target = { mqttPort: gateway.mqttPort, http: gateway.http, https: gateway.https, address: '127.0.0.4' }
    for (let round = 0; round < 4; round++) {
      await Promise.all(Array.from({ length: 10 }, (_, index) => readNothing(target, 20 * index)))
    }
    await eventually(async () => (await openFiles(gateway.pid, '/paho-mqtt.js')) === 0)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
  })
})
