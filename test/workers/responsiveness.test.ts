import { describe, expect, it } from 'vitest'
import { watchResponsiveness } from '../../src/workers/responsiveness.js'
import { channelPair } from './channel-pair.js'

const interval = 5

describe('a worker', () => {
  it('counts as hung once it has not answered six times in a row', async () => {
    const { primary, worker } = channelPair()
    let asked = 0
    const answered = [1, 2, 5]
    worker.onQuestion('isRunning', () => {
      asked++
      return answered.includes(asked) ? true : new Promise<never>(() => {})
    })
    const { signal } = new AbortController()
    expect(await watchResponsiveness({ channel: primary, signal, interval })).toBe('hung')
    expect(asked).toBe(5 + 6)
  })

  it('is asked no more once it has ended', async () => {
    const { primary, worker } = channelPair()
    const ending = new AbortController()
    let asked = 0
    worker.onQuestion('isRunning', () => {
      if (++asked === 3) ending.abort()
      return true
    })
    expect(await watchResponsiveness({ channel: primary, signal: ending.signal, interval })).toBe('ended')
    expect(asked).toBe(3)
  })
})
