/*
 * Both ways over one WebSocket: prints what comes, and publishes each line of standard input.
 *
 *   node examples/transports/socket.js ['news/#'] [news/europe/sport] [http://localhost:8080]
 */
import { createInterface } from 'node:readline'
import { WebSocket } from 'ws'

const [filter = 'news/#', topic = 'news/europe/sport', server = 'http://localhost:8080'] = process.argv.slice(2)

/** Where to go on. */
let cursor = ''
let socket

function connect() {
  const url = new URL('/v1/socket', server.replace(/^http/, 'ws'))
  url.search = new URLSearchParams({ topic: filter, ...(cursor !== '' && { cursor }) })
  socket = new WebSocket(url)
  socket.on('message', text => {
    const said = JSON.parse(text)
    if (said.type === 'event') process.stdout.write(`${said.topic} ${said.payload ?? said.payloadBase64}\n`)
    if (said.type === 'error' || said.type === 'gap') process.stderr.write(`${text}\n`)
    // What is retained, and comes first, is no place to go on from.
    if (said.type === 'event' && said.retained !== true) cursor = said.id
    else if (said.cursor !== undefined) cursor = said.cursor
  })
  socket.on('error', error => process.stderr.write(`${error.message}\n`))
  socket.on('close', () => setTimeout(connect, 2000))
}

connect()
createInterface({ input: process.stdin }).on('line', payload => {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: 'publish', topic, payload }))
  else process.stderr.write('There is no connection just now\n')
})
