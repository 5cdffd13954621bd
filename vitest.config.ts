import { relative } from 'node:path'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Directories whose files share a process: nothing in `src/` has state of its module, so that each may load it once. */
const shared =
  'test/{access,base,broker,browser,client,commands,compat,config,conformance,end-to-end,examples,http,hub,import,integrations,interop,journal,mqtt,presence,receipts,server,sources,storage,topics,transports,tunnel,websocket}/**/*.test.ts'

/** These look at their process itself, at what it holds or at what it costs; nobody else may have been in it. */
const alone = [
  'test/access/passwords.test.ts',
  'test/client/gateway.test.ts',
  'test/server/limits.test.ts',
  'test/tunnel/paced-client.test.ts',
  'test/tunnel/tunnel.test.ts',
]

/** Attacks on a gateway, with clients beside them. */
const attacks = 'test/attack/**/*.test.ts'

/** Files that take longest begin first, so that none of them is still running alone at the end. */
const longest = [
  'test/attack/attack.test.ts',
  'test/bench/quick.test.ts',
  'test/browser/',
  'test/commands/',
  'test/compat/',
  'test/end-to-end/',
  'test/receipts/durability.test.ts',
  'test/broker/embedded/',
  'test/sources/',
  'test/journal/',
]

/** The usual order, without what earlier runs have measured: within a project the longest files first, then the largest. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const name = relative(this.ctx.config.root, moduleId)
      const index = longest.findIndex(prefix => name.startsWith(prefix))
      return index === -1 ? longest.length : index
    }
    const order = ({ project }: TestSpecification) => project.config.sequence.groupOrder
    const usual = await super.sort(files)
    const projects = [...new Set(usual.map(({ project }) => project.name))]
    const place = ({ project }: TestSpecification) => projects.indexOf(project.name)
    return usual.sort((a, b) => order(a) - order(b) || place(a) - place(b) || rank(a) - rank(b))
  }
}

export default defineConfig({
  test: {
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // Twice the cores of the smallest machine: most tests wait most of the time, for a browser, a program or a timeout.
    maxWorkers: 4,
    sequence: { sequencer: LongestFirst },
    reporters: ['default'],
    projects: [
      { extends: true, test: { name: 'together', include: [shared], exclude: alone, isolate: false } },
      { extends: true, test: { name: 'apart', include: ['test/**/*.test.ts'], exclude: [shared, attacks] } },
      { extends: true, test: { name: 'looking', include: alone } },
      // After all others, and no more of them than cores: these look at how long others wait.
      { extends: true, test: { name: 'attacks', include: [attacks], maxWorkers: 2, sequence: { groupOrder: 1 } } },
    ],
  },
})
