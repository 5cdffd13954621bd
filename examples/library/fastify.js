// A Fastify program with mqway on the same server, and in its log: npm install fastify mqway && node fastify.js
import { fastify } from 'fastify'
import { startGateway } from 'mqway'

const app = fastify({ logger: { level: 'warn' } })
app.get('/', async () => 'The page of the Fastify program\n')

const gateway = await startGateway(
  { anonymous: true, data: 'none' },
  { server: app.server, log: ({ level, message, fields }) => app.log[level](fields, message) },
)
app.addHook('preClose', () => gateway.close())

process.stdout.write(`${await app.listen({ port: Number(process.env.PORT ?? 3000), host: '127.0.0.1' })}\n`)
process.once('SIGTERM', () => app.close())
