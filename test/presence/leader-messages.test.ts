import { beforeEach, describe, expect, it } from 'vitest'
import { LeaderMessages } from '../../src/presence/leader-messages.js'
import type { PresenceChange } from '../../src/presence/presence-messages.js'
import { eventually, settled } from '../helpers/wait.js'

describe('presence messages of the gateway that leads', () => {
  let published: string[]
  let marks: string[]
  let messages: LeaderMessages
  /** The position of the next mark. */
  let position: number
  const add = (device: string, at: number): void => {
    const time = Date.UTC(2026, 10, 21)
    const change = { event: 'join', device, user: undefined, transport: 'sse', filter: 'x', time, count: 1 } as const
    messages.add(change satisfies PresenceChange, at)
  }
  beforeEach(() => {
    published = []
    marks = []
    position = 1000
    messages = new LeaderMessages({
      messages: { publish: ({ device }) => published.push(device), drained: async () => {} },
      isHeld: () => true,
      mark: async (token, mark) => {
        marks.push(`${token} ${mark}`)
        return position
      },
    })
  })

  it('continue after the mark of the gateway before, which is read first', async () => {
    for (const at of [1, 2, 3]) add(`d${at}`, at)
    messages.reached(3)
    position = 6
    await messages.lead('token')
    await settled(() => published.length)
    expect(published).toEqual([])
    messages.marked('2')
    add('d5', 5)
    messages.reached(6)
    await eventually(() => published.length === 2)
    expect(published).toEqual(['d3', 'd5'])
    await eventually(() => marks.length === 2)
    expect(marks[1]).toBe('token 5')
  })

  it('are marked at the end of a position', async () => {
    position = 0
    for (let index = 0; index < 2500; index++) add(`d${index}`, 7)
    add('last', 8)
    messages.reached(7)
    await messages.lead('token')
    await eventually(() => published.length === 2500)
    messages.reached(8)
    await eventually(() => marks.length === 3)
    expect(marks).toEqual(['token 0', 'token 7', 'token 8'])
  })
})
