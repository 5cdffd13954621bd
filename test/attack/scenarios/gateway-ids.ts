import { hostname } from 'node:os'
import { openMqtt, repeat } from './attacker.js'
import type { Scenario } from './scenario.js'

/** Point 9: reconnects with client ids that could be the gateway's own, known or seen in logs. */
export const idsOfTheGateway: Scenario = {
  name: 'ids-of-the-gateway',
  run: async (target, signal) => {
    let before: { destroy(): unknown } | undefined
    const sent = await repeat(signal, 30, async () => {
      for (const clientId of ['mqway', `mqway-${hostname()}`, 'mqway-push', 'mqway-1']) {
        const socket = await openMqtt(target, signal, { clientId, clean: false })
        before?.destroy()
        before = socket
      }
      return 4
    })
    before?.destroy()
    return sent
  },
}
