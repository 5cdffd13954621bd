import { describe, expect, it } from 'vitest'
import { descriptorLimit, socketsWithin } from '../../src/server/descriptors.js'

describe('the descriptors of a process', () => {
  it('are known on Linux', () => {
    expect(descriptorLimit()).toBeGreaterThan(100)
  })

  it('leave 512 for what is no socket, or half where there are few', () => {
    expect([socketsWithin(4096, 1), socketsWithin(4096, 2), socketsWithin(256, 1)]).toEqual([3584, 1792, 128])
  })
})
