import { afterEach, expect, it, vi } from 'vitest'
import { ErrorLog } from '../../src/base/error-log.js'
import type { Logger } from '../../src/base/log.js'

afterEach(() => {
  vi.useRealTimers()
})

it('logs the first error, and every 10 s how many came since', () => {
  vi.useFakeTimers()
  const lines: unknown[][] = []
  const errors = new ErrorLog({ error: (...line: unknown[]) => void lines.push(line) } as unknown as Logger, 'no room')
  const error = new Error('disk full')
  for (let count = 0; count < 4; count++) errors.write(error)
  expect(lines).toEqual([[{ err: error }, 'no room']])
  vi.advanceTimersByTime(10_000)
  expect(lines.slice(1)).toEqual([[{ count: 3 }, 'no room, 3 more times in 10 seconds']])
  errors.write(error)
  vi.advanceTimersByTime(10_000)
  expect(lines).toHaveLength(3)
})
