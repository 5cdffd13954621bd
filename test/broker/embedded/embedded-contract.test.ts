import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { describeBroker } from '../../contracts/broker.js'
import { startGuarded } from './access-rig.js'
import { limits } from './limits.js'

const log = createLog({ level: 'silent', format: 'json' })

describe('the embedded broker, in memory', () => {
  describeBroker(
    async () => ({ broker: await createEmbedded({ data: 'none', ...limits }, log), dispose: async () => {} }),
    { beKilled: false },
  )
})

describe('the embedded broker, on disk', () => {
  describeBroker(
    async () => {
      const data = await mkdtemp(join(tmpdir(), 'mqway-'))
      return {
        broker: await createEmbedded({ data, ...limits }, log),
        dispose: () => rm(data, { recursive: true }),
      }
    },
    { beKilled: false },
  )
})

describe('the embedded broker, with rules that allow it all', () => {
  describeBroker(
    async () => {
      const rules = [{ to: 'anonymous' as const, publish: ['#'], subscribe: ['#', '$SYS/#'] }]
      return { broker: await startGuarded({ access: { rules } }), dispose: async () => {} }
    },
    { beKilled: false },
  )
})
