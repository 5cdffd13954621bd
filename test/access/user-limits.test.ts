import { describe, expect, it } from 'vitest'
import { UserLimits } from '../../src/access/user-limits.js'

describe('the connections of a user', () => {
  it('are counted, and released once', () => {
    const limits = new UserLimits(2)
    const release = limits.admit('alice')
    limits.admit('alice')
    expect(() => limits.admit('alice')).toThrow('Too many connections of this user')
    limits.admit('bob')
    release()
    release()
    limits.admit('alice')
    expect(() => limits.admit('alice')).toThrow(
      expect.objectContaining({ reason: 'too-many-from-user', httpStatus: 429 }),
    )
    expect(limits.users).toBe(2)
  })

  it('are as many as come for somebody who is not known, and with off', () => {
    const limits = new UserLimits(1)
    const releases = Array.from({ length: 5 }, () => limits.admit(undefined))
    for (const release of releases) release()
    expect(limits.users).toBe(0)
    const off = new UserLimits('off')
    const all = Array.from({ length: 5 }, () => off.admit('alice'))
    for (const release of all) release()
    expect(off.users).toBe(0)
  })
})
