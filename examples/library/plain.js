// A program on node:http with a page and a WebSocket of its own, and mqway on the same server: node plain.js
import { createReadStream } from 'node:fs'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { startGateway } from 'mqway'
import { WebSocketServer } from 'ws'

const client = fileURLToPath(import.meta.resolve('mqway/client'))
const server = createServer((request, response) => {
  if (request.url === '/mqway.js') {
    response.setHeader('content-type', 'text/javascript')
    createReadStream(client).pipe(response)
  } else {
    response.end(`The program’s own response to ${request.method} ${request.url}\n`)
  }
})

// Both stay with this program: its routes, and its listener of upgrades.
const echo = new WebSocketServer({ server, path: '/echo' })
echo.on('connection', socket => socket.on('message', message => socket.send(`echo: ${message}`)))

const gateway = await startGateway({ anonymous: true, data: 'none', log: { level: 'warn' } }, { server })

server.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  process.stdout.write(`http://127.0.0.1:${server.address().port}\n`)
})
process.once('SIGTERM', async () => {
  await gateway.close()
  echo.close()
  server.close()
})
