/** Random numbers, bytes and changes of bytes, the same ones for the same seed. */
export interface Random {
  /** A number from 0 on. */
  random(below: number): number
  pick<T>(items: readonly T[]): T
  bytes(length: number): Buffer
  /** Changes a few bytes of `source`: flipped, inserted, removed, repeated. */
  mutate(source: Buffer): Buffer
}

export function makeRandom(seed: number): Random {
  const random = mulberry32(seed)
  const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, () => random(256)))
  return {
    random,
    bytes,
    pick: <T>(items: readonly T[]): T => items[random(items.length)] as T,
    mutate: source => {
      let result = Buffer.from(source)
      for (let i = 1 + random(4); i > 0; i--) {
        const at = random(result.length + 1)
        const rest = result.subarray(at)
        const change = random(5)
        if (change === 0 && at < result.length) result[at] = random(256)
        else if (change === 1) result = Buffer.concat([result.subarray(0, at), bytes(1 + random(8)), rest])
        else if (change === 2) result = Buffer.concat([result.subarray(0, at), rest.subarray(1 + random(8))])
        else if (change === 3) result = Buffer.concat([result, result.subarray(at)])
        else result = Buffer.from(result.subarray(0, at))
      }
      return result
    },
  }
}

/** Small, and good enough to break things with. */
function mulberry32(state: number): (below: number) => number {
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}
