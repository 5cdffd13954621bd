import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'

describe('an ending', () => {
  it('has no stack of its own, keeps that of its cause, and leaves other errors theirs', () => {
    const cause = new Error('cable cut')
    const ending = new GatewayError('broker-lost', { cause })
    expect(ending.stack).not.toContain('\n')
    expect(ending.cause).toBe(cause)
    expect(cause.stack).toContain('errors.test')
    expect(new Error('after').stack).toContain('errors.test')
  })

  it('stays what it is, and makes anything else an internal error with that as its cause', () => {
    const ending = new GatewayError('client-closed')
    expect(GatewayError.from(ending)).toBe(ending)
    const bug = new TypeError('not a function')
    expect(GatewayError.from(bug)).toMatchObject({ reason: 'internal-error', cause: bug })
  })
})
