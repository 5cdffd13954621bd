import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // One more than there are cores: many tests wait for a time or for another program.
    maxWorkers: 3,
    reporters: ['default'],
  },
})
