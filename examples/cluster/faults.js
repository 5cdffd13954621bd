/*
 * Publishes a count through haproxy while it kills, stops and cuts off parts of the cluster that start.js runs, and prints what its subscribers lost or got
 * twice.
 *
 *   node examples/cluster/faults.js <directory that start.js has printed> [seconds of a fault] [subscribers] [messages each second]
 */
import { readFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { connect } from '../../public/mqway.js'

const [directory = '', ...numbers] = process.argv.slice(2)
/** `seconds`: of a fault, and between two faults. */
const [seconds = 5, count = 6, perSecond = 50] = numbers.map(Number)
const run = `${Date.now()}`
const state = () => JSON.parse(readFileSync(join(directory, 'state.json'), 'utf8'))
const url = `http://127.0.0.1:${state().front}`
const signal = (name, what) => process.kill(state().pids[name], what)

/** A command of haproxy's runtime API. */
const haproxy = command =>
  new Promise((resolve, reject) => {
    const socket = connectSocket(state().haproxySocket)
    socket.on('error', reject).on('close', resolve).resume()
    socket.end(`${command}\n`)
  })

async function cut(server) {
  await haproxy(`set server ${server} state maint; shutdown sessions server ${server}`)
  await pause(seconds * 1000)
  await haproxy(`set server ${server} state ready`)
}

async function stop(name) {
  signal(name, 'SIGSTOP')
  await pause(2 * seconds * 1000)
  signal(name, 'SIGCONT')
}

/** What a fault leaves behind when this program is ended in the middle of it. */
process.on('SIGINT', () => {
  signal('gateway2', 'SIGCONT')
  const commands = ['redis/redis', 'broker/broker'].map(server => haproxy(`set server ${server} state ready`))
  Promise.allSettled(commands).then(() => process.exit(1))
})

const faults = [
  ['a gateway is killed', () => signal('gateway1', 'SIGKILL')],
  ['a gateway is stopped and goes on', () => stop('gateway2')],
  ['the gateway that reads the broker is killed', () => signal(state().reader, 'SIGKILL')],
  ['a gateway is cut off from Redis', () => cut('redis/redis')],
  ['a gateway is cut off from the broker', () => cut('broker/broker')],
  ['Redis is killed and starts again with its file', () => signal('redis', 'SIGKILL')],
  ['the broker starts again', () => signal('mosquitto', 'SIGTERM')],
]

/** Subscribers: how often each count has arrived, and their gaps. */
const transports = globalThis.WebSocket ? ['socket', 'sse', 'poll'] : ['sse', 'poll']
const subscribers = Array.from({ length: count }, (_, index) => {
  const transport = transports[index % transports.length]
  const subscriber = { transport, counts: new Map(), gaps: 0, cursor: '' }
  subscriber.client = connect({
    url,
    topics: [`count/${run}`],
    transports: [transport],
    retry: { min: 100, max: 1000 },
    onEvent: ({ payload }) => subscriber.counts.set(payload, (subscriber.counts.get(payload) ?? 0) + 1),
    onGap: () => subscriber.gaps++,
  })
  return subscriber
})
const publisher = connect({ url })

/** Counts whose publish was answered. */
const acknowledged = []
let unanswered = 0
let isOver = false
async function publish() {
  const open = new Set()
  const start = Date.now()
  for (let next = 0; !isOver; next++) {
    const publishing = publisher.publish(`count/${run}`, `${next}`).then(
      () => acknowledged.push(`${next}`),
      () => unanswered++,
    )
    open.add(publishing)
    publishing.then(() => open.delete(publishing))
    if (open.size >= 100) await Promise.race(open)
    await pause(Math.max(0, start + (1000 * next) / perSecond - Date.now()))
  }
  await Promise.all(open)
}

const opened = subscribers.map(async ({ client }) => {
  while (client.state.phase !== 'open') await pause(20)
})
await Promise.all(opened)
const publishing = publish()
for (const [name, fault] of faults) {
  await pause(seconds * 1000)
  process.stdout.write(`${name}\n`)
  await fault()
}
await pause(seconds * 1000)
isOver = true
await publishing

const lostBy = ({ counts }) => acknowledged.filter(each => !counts.has(each)).length
const deadline = Date.now() + 20_000
while (subscribers.some(subscriber => lostBy(subscriber) > 0) && Date.now() < deadline) await pause(100)

process.stdout.write(`\n${acknowledged.length} published and acknowledged, ${unanswered} without an answer\n`)
let failed = false
for (const transport of transports) {
  const sums = { subscribers: 0, lost: 0, twice: 0, gaps: 0 }
  for (const subscriber of subscribers.filter(each => each.transport === transport)) {
    sums.subscribers++
    sums.lost += lostBy(subscriber)
    sums.twice += [...subscriber.counts.values()].filter(times => times > 1).length
    sums.gaps += subscriber.gaps
    subscriber.client.close()
  }
  failed ||= sums.lost + sums.twice + sums.gaps > 0
  process.stdout.write(
    `${transport}, ${sums.subscribers} subscribers: ${sums.lost} lost, ${sums.twice} twice, ${sums.gaps} gaps\n`,
  )
}
publisher.close()
process.exitCode = failed ? 1 : 0
