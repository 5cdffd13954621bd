/** Fills a journal as the load generator expects it: `fill-journal PROGRAM DIRECTORY MESSAGES TOPICS SIZE`. */
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import pino from 'pino'

/** The part of the measured build that is used here. */
interface JournalModule {
  openLevelJournal(options: { directory: string; bounds: Record<string, number>; log: pino.Logger }): Promise<{
    append(message: { topic: string; payload: Buffer; qos: 0; retain: boolean }): Promise<unknown>
    close(): Promise<void>
  }>
}

const [program = '', directory = '', ...counts] = process.argv.slice(2)
const [kept = 0, topics = 0, size = 0] = counts.map(Number)
const atOnce = 1000
const unbounded = 1e12

/** The same as in native/messages.c. */
function makePattern(): Buffer {
  let x = 2463534242
  return Buffer.from(
    Array.from({ length: size }, () => {
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      return 97 + ((x >>> 0) % 26)
    }),
  )
}

const pattern = makePattern()

function payloadOf(number: number): Buffer {
  const payload = Buffer.from(pattern)
  payload.write(`~${String(number).padStart(10, '0')}`)
  return payload
}

const { openLevelJournal }: JournalModule = await import(
  pathToFileURL(join(dirname(program), 'journal/level-journal.js')).href
)
const names = ['maxEvents', 'maxBytes', 'maxAge', 'maxRetained', 'maxRetainedBytes', 'maxWaiting', 'maxWaitingBytes']
const bounds = Object.fromEntries(names.map(name => [name, unbounded]))
const journal = await openLevelJournal({ directory, bounds, log: pino({ level: 'silent' }) })
for (let done = 0; done < kept; done += atOnce) {
  const messages = Array.from({ length: Math.min(atOnce, kept - done) }, (_, index) => {
    const at = done + index
    const payload = payloadOf(Math.floor(at / topics))
    return journal.append({ topic: `bench/${at % topics}`, payload, qos: 0, retain: false })
  })
  await Promise.all(messages)
}
await journal.close()
console.log('filled')
