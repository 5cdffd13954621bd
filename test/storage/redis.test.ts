import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { pino } from 'pino'
import { expect, it, onTestFinished } from 'vitest'
import { connectRedis, redisOptions } from '../../src/storage/redis.js'
import { startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

describeWith('redis-server', 'a connection to Redis', () => {
  it('is made again when its server is gone without a word, and another one in its place', async () => {
    const server = await startRedis()
    onTestFinished(() => server.stop())
    const sockets: Socket[] = []
    const relay = createServer(client => {
      const upstream = connect(server.url.replace('unix:', ''))
      for (const socket of [client, upstream]) {
        socket.on('error', () => {})
        sockets.push(socket)
      }
      client.pipe(upstream).pipe(client)
    }).listen(0, '127.0.0.1')
    onTestFinished(() => void relay.close())
    await once(relay, 'listening')
    const address = relay.address()
    const url = `redis://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
    const redis = await connectRedis(await redisOptions({ url, prefix: '' }), url, pino({ level: 'silent' }), 100)
    onTestFinished(() => redis.disconnect())
    await redis.set('k', 'v')
    // Neither data nor an end passes any more.
    for (const socket of sockets) socket.unpipe().pause()
    await expect(redis.get('k')).rejects.toThrow('Command timed out')
    await eventually(async () => (await redis.get('k').catch(() => undefined)) === 'v')
    for (const socket of sockets) socket.destroy()
  }, 10_000)
})
