import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { freePorts } from '../helpers/free-ports.js'
import { run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'

const soakSeconds = process.env['SOAK_SECONDS']
const example = (name: string): string => fileURLToPath(new URL(`../../examples/cluster/${name}`, import.meta.url))

/** The suite has `end-to-end/several-gateways.test.ts`; this runs for a minute. */
describeWith(['redis-server', 'mosquitto', 'haproxy'], 'the example of a cluster', () => {
  it.runIf(soakSeconds !== undefined)(
    'loses, repeats and skips nothing through all its faults',
    async () => {
      const ports = await freePorts(8)
      const cluster = run(process.execPath, [example('start.js'), ports.join()])
      onTestFinished(() => cluster.stop())
      const [, directory = ''] = /^Ready.*faults\.js (\S+)$/.exec(await cluster.line()) ?? []
      expect(JSON.parse(readFileSync(join(directory, 'state.json'), 'utf8'))).toHaveProperty('pids')
      const faults = run(process.execPath, [example('faults.js'), directory, '4', '90', '50'])
      onTestFinished(() => faults.stop())
      expect(await faults.exited()).toBe(0)
      const lines: string[] = []
      for (;;) {
        const line = await faults.line().catch(() => undefined)
        if (line === undefined) break
        lines.push(line)
      }
      expect(lines.filter(line => /: 0 lost, 0 twice, 0 gaps$/.test(line)).length).toBeGreaterThan(1)
    },
    180_000,
  )
})
