import { fileURLToPath } from 'node:url'
import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { run } from '../helpers/processes.js'

const examples = {
  'plain.js': /^The program’s own response to GET \/\n$/,
  'express.js': /^The page of the Express program\n$/,
  'fastify.js': /^The page of the Fastify program\n$/,
}

describe('the examples of the library', () => {
  it.each(Object.entries(examples))('%s serves its own page and mqway on one port, and ends', async (name, page) => {
    const script = fileURLToPath(new URL(`../../examples/library/${name}`, import.meta.url))
    const program = run(process.execPath, [script], { env: { ...process.env, PORT: '0' } })
    onTestFinished(() => program.stop('SIGKILL'))
    const url = await program.line()
    expect(await (await fetch(url)).text()).toMatch(page)

    const client = await mqtt.connectAsync(`${url.replace('http', 'ws')}/mqtt`, { reconnectPeriod: 0 })
    onTestFinished(() => client.endAsync(true))
    await client.subscribeAsync('news/#')
    const message = nextMessage(client)
    const { status } = await fetch(`${url}/v1/publish?topic=news/sport`, { method: 'POST', body: 'hello' })
    expect(status).toBe(201)
    expect(String((await message).payload)).toBe('hello')

    program.child.kill('SIGTERM')
    expect(await program.exited()).toBe(0)
    expect(program.errors()).toBe('')
  })
})
