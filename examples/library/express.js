// An Express program with mqway on the same server: npm install express mqway && node express.js
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { startGateway } from 'mqway'

const app = express()
app.get('/', (_request, response) => response.send('The page of the Express program\n'))
app.get('/mqway.js', (_request, response) => response.sendFile(fileURLToPath(import.meta.resolve('mqway/client'))))

const server = createServer(app)
const gateway = await startGateway({ anonymous: true, data: 'none', log: { level: 'warn' } }, { server })

server.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  process.stdout.write(`http://127.0.0.1:${server.address().port}\n`)
})
process.once('SIGTERM', async () => {
  await gateway.close()
  server.close()
})
