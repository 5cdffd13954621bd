import { describe, expect, it } from 'vitest'
import { UnwrittenMessages } from '../../../src/broker/embedded/unwritten-messages.js'

function start() {
  const released: [string, readonly number[]][] = []
  const unwritten = new UnwrittenMessages<number>({
    release: (account, messages) => void released.push([account, messages]),
    internalAccount: 'own',
  })
  const add = (account: string, bytes: number, isForMany = false): (() => Promise<void>) => {
    let done = (): void => {}
    const written = new Promise<void>(resolve => {
      done = resolve
    })
    unwritten.add(account, { written, bytes, isForMany })
    return async () => {
      done()
      await written
    }
  }
  return { unwritten, released, add }
}

const half = 160 * 1024

describe('messages of an account', () => {
  it('are held back while more than 256 KiB of the account wait to be written, and those of no other account', async () => {
    const { unwritten, released, add } = start()
    const first = add('a', half)
    expect(unwritten.holdBack('a', 1)).toBe(false)
    const second = add('a', half)
    expect([unwritten.holdBack('a', 2), unwritten.holdBack('a', 3), unwritten.holdBack('b', 4)]).toEqual([
      true,
      true,
      false,
    ])
    await first()
    expect(released).toEqual([['a', [2, 3]]])
    await second()
    expect(unwritten.holdBack('a', 5)).toBe(false)
  })

  it('are held back while any waits, where more than 32 MiB wait in all', async () => {
    const { unwritten, released, add } = start()
    const large = add('large', 33 * 1024 ** 2)
    expect(unwritten.holdBack('a', 1)).toBe(false)
    const small = add('a', 1)
    expect(unwritten.holdBack('a', 2)).toBe(true)
    await small()
    expect(released).toEqual([['a', [2]]])
    await large()
    expect(unwritten.holdBack('large', 3)).toBe(false)
  })

  it('are held back behind one that is queued for many sessions; the program has eight of those', async () => {
    const { unwritten, released, add } = start()
    const job = add('a', 0, true)
    expect(unwritten.holdBack('a', 1)).toBe(true)
    const own = Array.from({ length: 7 }, () => add('own', 0, true))
    expect(unwritten.holdBack('own', 2)).toBe(false)
    own.push(add('own', 0, true))
    expect(unwritten.holdBack('own', 3)).toBe(true)
    await Promise.all([job(), ...own.map(done => done())])
    expect(released).toEqual([
      ['a', [1]],
      ['own', [3]],
    ])
  })

  it('come behind the one that was waited for', async () => {
    const { unwritten, released } = start()
    let answer: (message: number | undefined) => void = () => {}
    const message = new Promise<number | undefined>(resolve => {
      answer = resolve
    })
    unwritten.waitFor('a', message)
    expect(unwritten.holdBack('a', 2)).toBe(true)
    answer(1)
    await message
    expect(released).toEqual([['a', [1, 2]]])
  })

  it('stay held back behind it, although writes without bytes end meanwhile', async () => {
    const { unwritten, add } = start()
    const [first, second] = [add('a', 0), add('a', 0)]
    await first()
    unwritten.waitFor('a', new Promise(() => {}))
    expect(unwritten.holdBack('a', 2)).toBe(true)
    await second()
    expect(unwritten.holdBack('a', 3)).toBe(true)
  })
})
