import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createStreamPair } from '../../../src/broker/embedded/stream-pair.js'

const marks = { readableHighWaterMark: 1024, clientHighWaterMark: 1024, brokerHighWaterMark: 4096 }

async function bytesOf(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

describe('a pair of streams', () => {
  it('hands a large chunk over in pieces of 64 KiB, and copies none', async () => {
    const { client, broker } = createStreamPair({ ...marks, brokerHighWaterMark: 2 ** 21 })
    const chunk = Buffer.allocUnsafeSlow(1024 ** 2).fill('x')
    const pieces: Buffer[] = []
    client.on('data', piece => pieces.push(piece))
    broker.end(chunk)
    await once(client, 'end')
    expect(pieces.map(({ length }) => length)).toEqual(Array(16).fill(64 * 1024))
    expect(pieces.every(({ buffer }) => buffer === chunk.buffer)).toBe(true)
    client.destroy()
  })

  it('carries any bytes, in any chunks, both ways at once', async () => {
    const chunks = fc.array(fc.uint8Array({ maxLength: 3000 }), { maxLength: 20 })
    await fc.assert(
      fc.asyncProperty(chunks, chunks, async (there, back) => {
        const { client, broker } = createStreamPair(marks)
        const [got, gotBack] = [bytesOf(broker), bytesOf(client)]
        await Promise.all([
          pipeline(
            there.map(chunk => Buffer.from(chunk)),
            client,
            { end: true },
          ),
          pipeline(
            back.map(chunk => Buffer.from(chunk)),
            broker,
          ),
        ])
        expect(await got).toEqual(Buffer.concat(there))
        expect(await gotBack).toEqual(Buffer.concat(back))
      }),
      { numRuns: 50 },
    )
  })

  it('holds no more than its marks while nobody reads, and says so', async () => {
    const { client, broker } = createStreamPair(marks)
    let written = 0
    while (broker.write(Buffer.alloc(100))) written += 100
    expect(written).toBeGreaterThan(4096)
    const buffered = client.readableLength + broker.waitingBytes
    expect(buffered).toBeLessThanOrEqual(1024 + 2 * 4096 + 200)
    expect(buffered).toBeGreaterThanOrEqual(written)
    const drained = once(broker, 'drain')
    client.resume()
    await drained
    client.destroy()
  })

  it('makes one chunk of what the broker writes and sends in one turn, and copies no large one', async () => {
    const { client, broker } = createStreamPair({ ...marks, brokerHighWaterMark: 2 ** 20 })
    const chunks: Buffer[] = []
    client.on('data', chunk => chunks.push(chunk))
    const large = Buffer.alloc(20_000)
    await once(client, 'resume')
    broker.write('a')
    expect(broker.send(Buffer.from('b'))).toBe(true)
    broker.write(large)
    expect(broker.send(Buffer.from('c'))).toBe(true)
    broker.cork()
    broker.write('d')
    broker.uncork()
    expect(chunks).toEqual([])
    await turn()
    expect(chunks.map(String)).toEqual(['ab', String(large), 'cd'])
    expect(chunks[1]?.buffer).toBe(large.buffer)
    broker.destroy()
    client.destroy()
  })

  it('refuses to send what would overtake what is written, or is more than fits, and sends nothing after the end', async () => {
    const { client, broker } = createStreamPair(marks)
    const packet = Buffer.alloc(100, 'p')
    broker.cork()
    broker.write('corked')
    expect(broker.send(packet)).toBe(false)
    broker.uncork()
    let sent = 0
    while (broker.send(packet)) sent += packet.length
    expect(sent).toBeGreaterThan(marks.brokerHighWaterMark - packet.length - 'corked'.length)
    expect(broker.waitingBytes).toBe(sent + 'corked'.length)
    await turn()
    expect(broker.waitingBytes).toBeLessThan(sent)
    broker.end()
    expect(broker.send(packet)).toBe(false)
    expect((await bytesOf(client)).toString()).toBe(`corked${'p'.repeat(sent)}`)
    client.destroy()
  })

  it('passes on what was held when the other direction moves', async () => {
    let held = true
    const { client, broker } = createStreamPair({ ...marks, pauseInput: () => held, onSent: () => (held = false) })
    client.on('data', () => {})
    client.write('question')
    await turn()
    expect(broker.readableLength).toBe(0)
    broker.send(Buffer.from('answer'))
    await once(broker, 'readable')
    expect(String(broker.read())).toBe('question')
    client.destroy()
    broker.destroy()
  })

  it('gives all of it to a reader that reads once for each “readable”, in any chunks and portions', async () => {
    const chunks = fc.array(fc.uint8Array({ minLength: 1, maxLength: 3000 }), { minLength: 1, maxLength: 20 })
    await fc.assert(
      fc.asyncProperty(chunks, fc.integer({ min: 1, max: 2000 }), async (given, batchSize) => {
        const { client, broker } = createStreamPair({
          ...marks,
          inspectIn: chunk => Math.min(chunk.length, batchSize),
        })
        const got: Buffer[] = []
        broker.on('readable', () => {
          const chunk = broker.read()
          if (chunk) got.push(chunk)
        })
        for (const chunk of given) client.write(chunk)
        client.end()
        await once(broker, 'end')
        expect(Buffer.concat(got)).toEqual(Buffer.concat(given))
        broker.destroy()
      }),
      { numRuns: 50 },
    )
  })

  it('ends one direction and keeps the other', async () => {
    const { client, broker } = createStreamPair(marks)
    client.end('question')
    expect(String(await bytesOfHalf(broker))).toBe('question')
    broker.end('answer')
    expect(String(await bytesOf(client))).toBe('answer')
  })

  it.each([undefined, new Error('protocol error')])(
    'delivers what was written before destroy(%s), corked and beyond the marks, and then the end',
    async error => {
      const { client, broker } = createStreamPair(marks)
      broker.on('error', () => {})
      const all = Array.from({ length: 100 }, (_, index) => Buffer.alloc(100, index))
      for (const chunk of all.slice(0, 90)) broker.write(chunk)
      broker.cork()
      for (const chunk of all.slice(90)) broker.write(chunk)
      broker.destroy(error)
      expect(broker.destroyed).toBe(true)
      expect(await bytesOf(client)).toEqual(Buffer.concat(all))
    },
  )

  it('lets go of what waits for an end that is gone', async () => {
    const { client, broker } = createStreamPair(marks)
    broker.write(Buffer.alloc(10_000))
    const written = new Promise(resolve => broker.write(Buffer.alloc(10_000), resolve))
    const closed = once(client, 'close')
    client.destroy()
    await Promise.all([written, closed, once(broker.resume(), 'end')])
    expect(broker.waitingBytes).toBe(0)
    broker.destroy()
  })

  it('keeps out what the inspection refuses, and ends the writing end with its error', async () => {
    const refusal = new Error('refused')
    const seen: Buffer[] = []
    const { client, broker } = createStreamPair({
      ...marks,
      inspectIn: chunk => (chunk.includes('bad') ? refusal : chunk.length),
    })
    broker.on('data', chunk => seen.push(chunk))
    const ended = once(broker, 'end')
    client.write('good')
    client.write('bad')
    const [error] = await once(client, 'error')
    expect(error).toBe(refusal)
    await ended
    expect(seen.map(String)).toEqual(['good'])
    broker.destroy()
  })
})

async function bytesOfHalf(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = []
  stream.on('data', chunk => chunks.push(chunk))
  await once(stream, 'end')
  return Buffer.concat(chunks)
}
