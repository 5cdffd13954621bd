/*
 * Listens to a channel, and tells for each event that it has come.
 *
 *   node examples/pere/subscriber.js [http://localhost:8080/pere] [CHANNEL_1]
 */
import { randomInt } from 'node:crypto'
import { events } from './event-source.js'

const [server = 'http://localhost:8080/pere', channel = 'CHANNEL_1'] = process.argv.slice(2)
const device = `H0039${randomInt(1e8, 1e9)}`
const path = encodeURIComponent(channel)

async function feedback(id, status) {
  const answer = await fetch(`${server}/feedback/${path}`, {
    method: 'POST',
    headers: { Device: device, 'Last-Event-Id': id },
    body: new URLSearchParams({ status }),
  })
  if (answer.status !== 200) process.stderr.write(`FEEDBACK> ${answer.status}: ${(await answer.text()).trim()}\n`)
}

process.stdout.write(`LISTEN (device: ${device}), channel: ${channel}, server: ${new URL(server).host}\n\n`)
try {
  for await (const { id, data } of events(`${server}/feed/${path}`, { Device: device })) {
    process.stdout.write(`RX EVT> ${data}\n`)
    // What the device does with the event goes here.
    await feedback(id, 'rx ok').catch(error => process.stderr.write(`FEEDBACK> ${error.message}\n`))
  }
} catch (error) {
  process.stderr.write(`LISTEN> ${error.message}\n`)
  process.exitCode = 1
}
