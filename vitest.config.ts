import { defineConfig } from 'vitest/config'

/** Directories whose files share a process: nothing in `src/` has state of its module, so that each may load it once. */
const shared =
  'test/{access,broker,browser,client,commands,compat,config,end-to-end,examples,http,hub,import,integrations,interop,journal,mqtt,presence,receipts,server,sources,transports,tunnel,websocket}/**/*.test.ts'

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

export default defineConfig({
  test: {
    testTimeout: 30_000,
    hookTimeout: 30_000,
    maxWorkers: 2,
    reporters: ['default'],
    projects: [
      { extends: true, test: { name: 'together', include: [shared], exclude: alone, isolate: false } },
      { extends: true, test: { name: 'apart', include: ['test/**/*.test.ts'], exclude: [shared, attacks] } },
      { extends: true, test: { name: 'looking', include: alone } },
      // After all others and one at a time: these look at how long others wait.
      { extends: true, test: { name: 'attacks', include: [attacks], maxWorkers: 1, sequence: { groupOrder: 1 } } },
    ],
  },
})
