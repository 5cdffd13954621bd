import { connectRaw, connectRawSocket, pause, repeat, textFrame } from './raw-connection.js'
import type { Scenario } from './scenario.js'

/** Of one body or message, in bytes: less than `limits.bodySize`. */
const bodySize = 1_000_000
/** As many as use up a budget of 64 MiB. */
const bodies = 80
/** Milliseconds: with fewer, this would be a flood of bytes, and no question of room. */
const betweenTries = 2000

/** WebSockets with a message in fragments each, of which the last one never comes. */
export const unfinishedMessages: Scenario = {
  name: 'unfinished-messages',
  run: (target, signal) =>
    repeat(
      bodies,
      signal,
      async () => {
        const socket = await connectRawSocket(target, '/v1/socket', signal)
        await socket.write(textFrame(Buffer.alloc(bodySize, 'x'), false))
        await Promise.race([socket.ended(), pause(60_000, signal)])
        return 1
      },
      betweenTries,
    ),
}

/** Messages of publishers over HTTP whose last byte never comes. */
export const slowBodies: Scenario = {
  name: 'slow-bodies',
  run: (target, signal) =>
    repeat(
      bodies,
      signal,
      async () => {
        const connection = await connectRaw(target, signal)
        const headers = `Host: localhost\r\nContent-Type: text/plain\r\nContent-Length: ${bodySize + 1}`
        await connection.write(`POST /v1/publish?topic=attack/slow HTTP/1.1\r\n${headers}\r\n\r\n`)
        await connection.write(Buffer.alloc(bodySize, 'x'))
        await Promise.race([connection.ended(), pause(60_000, signal)])
        return 1
      },
      betweenTries,
    ),
}

/** A message of a publisher in chunks of one byte, which take a hundred times as much where each is kept. */
export const tinyChunks: Scenario = {
  name: 'tiny-chunks',
  run: (target, signal) =>
    repeat(
      10,
      signal,
      async () => {
        const connection = await connectRaw(target, signal)
        const headers = 'Host: localhost\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked'
        await connection.write(`POST /v1/publish?topic=attack/chunks HTTP/1.1\r\n${headers}\r\n\r\n`)
        const chunks = '1\r\nx\r\n'.repeat(10_000)
        for (let sent = 0; sent < 900_000 && connection.isOpen; sent += 10_000) await connection.write(chunks)
        await Promise.race([connection.ended(), pause(1000, signal)])
        return 1
      },
      betweenTries,
    ),
}
