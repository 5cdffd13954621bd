/*
 * Pushes an event with some random data every few seconds.
 *
 *   node examples/pere/publisher.js [http://localhost:8080/pere] [CHANNEL_1] [seconds between two]
 */
import { randomInt } from 'node:crypto'

const [server = 'http://localhost:8080/pere', channel = 'CHANNEL_1', seconds = '5'] = process.argv.slice(2)
const device = `P0039${randomInt(1e8, 1e9)}`
const letters = 'abcdefghijklmnopqrstuvwxyz0123456789'

const print = line => process.stdout.write(`${line}\n`)
const randomText = () => Array.from({ length: randomInt(16, 64) }, () => letters[randomInt(letters.length)]).join('')

async function push(event) {
  const answer = await fetch(`${server}/push/${encodeURIComponent(channel)}`, {
    method: 'POST',
    headers: { Device: device, 'Content-Type': 'application/json' },
    body: event,
  })
  if (answer.status !== 204) throw new Error(`${answer.status}: ${(await answer.text()).trim()}`)
}

print(`PUBLISH (device: ${device}), channel: ${channel}, server: ${new URL(server).host}\n`)
for (let id = 1; ; id++) {
  const time = new Date().toISOString().replace(/\.\d+/, '')
  const event = JSON.stringify({ channel, device, id, time, data: randomText() })
  try {
    await push(event)
    print(`PUSH EVT> event: ${event}`)
  } catch (error) {
    // The next one may get through.
    process.stderr.write(`PUSH EVT> failed: ${error.cause?.message ?? error.message}\n`)
  }
  await new Promise(resolve => setTimeout(resolve, Number(seconds) * 1000))
}
