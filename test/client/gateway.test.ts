import { expect, it, onTestFinished } from 'vitest'
import type { Transport } from '../../src/client/api.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { recorded } from './rig.js'

async function start(): Promise<TestGateway> {
  const gateway = await startTestGateway()
  onTestFinished(() => gateway.close())
  return gateway
}

async function publish(gateway: TestGateway, topic: string, payload: string, query = ''): Promise<void> {
  const url = `${gateway.urls.http}/v1/publish?topic=${encodeURIComponent(topic)}${query}`
  const answer = await fetch(url, { method: 'POST', body: payload })
  expect(answer.status, await answer.text()).toBe(201)
}

it.each<Transport>(['sse', 'poll'])('gets what is retained, and then what comes, over %s', async transport => {
  const gateway = await start()
  await publish(gateway, 'news/state', 'kept', '&retain=true')
  const heard = recorded({
    url: gateway.urls.http,
    topics: ['news/#'],
    transports: [transport],
  })
  await heard.open(transport)
  await heard.until(() => heard.client.cursor !== undefined)
  for (const payload of ['one', 'zwei', '三']) await publish(gateway, 'news/eu', payload)
  await heard.until(() => heard.events.length === 4)
  expect(heard.payloads).toEqual(['kept', 'one', 'zwei', '三'])
  expect(heard.events.map(({ retained = false }) => retained)).toEqual([true, false, false, false])
  expect(heard.client.cursor).toBe(heard.events[3]?.id)
  expect(heard.states.map(({ phase }) => phase)).toEqual(['connecting', 'open'])
  heard.client.close()
  expect(heard.client.state).toEqual({ phase: 'closed' })
})
