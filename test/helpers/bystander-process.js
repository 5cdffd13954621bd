// A bystander of an attack, in a separate process: clients of other addresses, whose round trips it measures until it gets the message to
// stop. Arguments: one JSON object (BystanderOptions). Messages to the parent: 'ready', then the report.
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { MqttClient } from 'mqtt'

const options = JSON.parse(process.argv[2])
const { mqttPort, httpUrl, echoPort, mqttAddress, httpAddress, interval, username, password, headers } = options

/** Round trips of one kind: sent and received messages, and durations in milliseconds. */
class RoundTrips {
  #sent = new Map()
  #times = []
  #count = 0
  #repeated = 0
  #windowBegin = { times: 0, errors: 0 }
  errors = []

  begin() {
    const id = this.#count++
    this.#sent.set(id, performance.now())
    return id
  }

  end(id) {
    const begun = this.#sent.get(id)
    if (begun === undefined) this.#repeated++
    else this.#times.push(performance.now() - begun)
    this.#sent.delete(id)
  }

  isUsed = false

  get open() {
    return this.#sent.size
  }

  get done() {
    return this.#times.length
  }

  /** All round trips, or those completed since the last window. */
  report({ isWindow = false } = {}) {
    const begin = isWindow ? this.#windowBegin : { times: 0, errors: 0 }
    this.#windowBegin = { times: this.#times.length, errors: this.errors.length }
    const sorted = this.#times.slice(begin.times).sort((a, b) => a - b)
    const at = part => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0
    return {
      sent: this.#count,
      lost: this.#sent.size,
      repeated: this.#repeated,
      p50: at(0.5),
      p99: at(0.99),
      max: at(1),
      errors: this.errors.slice(begin.errors, begin.errors + 10),
    }
  }
}

const kinds = { mqtt: new RoundTrips(), http: new RoundTrips(), push: new RoundTrips(), control: new RoundTrips() }
const name = `bystander/${process.pid}`
const closers = []
const starts = []

if (mqttPort) {
  kinds.mqtt.isUsed = true
  starts.push(async () => {
    const client = new MqttClient(
      () => connect({ port: mqttPort, host: '127.0.0.1', localAddress: mqttAddress }).setNoDelay(),
      { clientId: `bystander-${process.pid}`, username, password, reconnectPeriod: 50, clean: true },
    )
    client.on('error', error => kinds.mqtt.errors.push(String(error)))
    client.on('close', () => kinds.mqtt.errors.push('the MQTT connection was closed'))
    client.on('message', (_topic, payload) => kinds.mqtt.end(Number(payload)))
    closers.push(() => client.removeAllListeners('close').end(true))
    await once(client, 'connect')
    await client.subscribeAsync(`${name}/mqtt`, { qos: 1 })
    return () => client.publish(`${name}/mqtt`, String(kinds.mqtt.begin()), { qos: 1 })
  })
}

const agent = new Agent({ keepAlive: true, maxSockets: 64 })
closers.push(() => agent.destroy())
function ask(kind, path, { method = 'GET', body, onBody } = {}, onResponse = () => {}) {
  const asked = request(
    new URL(path, httpUrl),
    { agent: onBody ? false : agent, localAddress: httpAddress, headers, method },
    response => {
      if (response.statusCode >= 300) kinds[kind].errors.push(`${method} ${path}: ${response.statusCode}`)
      onResponse(response)
      if (onBody) onBody(response)
      else response.resume()
    },
  )
  asked.on('error', error => {
    // The gateway closed an idle connection at this moment: RFC 9112 §9.3.1 allows a retry.
    if (asked.reusedSocket && error.code === 'ECONNRESET') ask(kind, path, { method, body, onBody }, onResponse)
    else kinds[kind].errors.push(`${method} ${path}: ${error}`)
  })
  asked.end(body)
  return asked
}

if (httpUrl) {
  kinds.http.isUsed = true
  starts.push(async () => () => {
    const id = kinds.http.begin()
    ask('http', '/healthz', {}, response => {
      if (response.statusCode === 200) response.on('end', () => kinds.http.end(id))
    })
  })
}

if (httpUrl && options.push !== false) {
  kinds.push.isUsed = true
  starts.push(async () => {
    const stream = ask('push', `/v1/events?topic=${name}/push`, {
      onBody: response => {
        let text = ''
        response.setEncoding('utf8').on('data', chunk => {
          text += chunk
          const lines = text.split('\n')
          text = lines.pop()
          for (const line of lines) {
            if (!line.startsWith('data:')) continue
            const payload = JSON.parse(line.slice(5)).payload
            if (payload !== undefined) kinds.push.end(Number(payload))
          }
        })
        response.on('close', () => kinds.push.errors.push('the event stream was closed'))
      },
    })
    closers.push(() =>
      stream
        .removeAllListeners()
        .on('error', () => {})
        .destroy(),
    )
    await once(stream, 'response')
    return () => ask('push', `/v1/publish?topic=${name}/push`, { method: 'POST', body: String(kinds.push.begin()) })
  })
}

if (echoPort) {
  starts.push(async () => {
    const socket = connect({ port: echoPort, host: '127.0.0.1' }).setNoDelay()
    socket.on('error', error => kinds.control.errors.push(String(error)))
    closers.push(() => socket.destroy())
    await once(socket, 'connect')
    let text = ''
    socket.setEncoding('utf8').on('data', chunk => {
      text += chunk
      const lines = text.split('\n')
      text = lines.pop()
      for (const line of lines) kinds.control.end(Number(line))
    })
    return () => socket.write(`${kinds.control.begin()}\n`)
  })
}

const reportOf = options =>
  Object.fromEntries(Object.entries(kinds).map(([kind, trips]) => [kind, trips.report(options)]))

const sends = await Promise.all(starts.map(start => start()))
for (const kind of Object.values(kinds)) kind.errors.length = 0
const timer = setInterval(() => {
  for (const send of sends) send()
}, interval)
process.send('ready')
process.once('disconnect', () => process.exit(1))
process.on('message', async message => {
  if (message.rounds !== undefined) {
    while (Object.values(kinds).some(kind => kind.isUsed && kind.done < message.rounds)) {
      await new Promise(resolve => setTimeout(resolve, 5))
    }
    process.send('seen')
    return
  }
  if (message.window) {
    process.send(reportOf({ isWindow: true }))
    return
  }
  clearInterval(timer)
  const end = performance.now() + options.patience
  while (Object.values(kinds).some(kind => kind.open > 0) && performance.now() < end) {
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  process.send(reportOf(), () => {
    for (const close of closers) close()
    process.exit(0)
  })
})
