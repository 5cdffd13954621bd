import { EventSourcePlus } from 'event-source-plus'
import { expect, it, onTestFinished } from 'vitest'
import { startTestGateway } from '../helpers/gateway.js'
import { startMeddlingProxy } from '../helpers/meddling-proxy.js'
import { eventually } from '../helpers/wait.js'

/*
 * It knows an id from blocks with data alone, as eventsource 3 and 4 and others do.
 */

it('event-source-plus gets every event once and in order, however often its connection is cut', async () => {
  const gateway = await startTestGateway({ https: { port: 'off' } })
  onTestFinished(() => gateway.close())
  const proxy = await startMeddlingProxy(() => gateway.urls.http)
  onTestFinished(() => proxy.close())
  const source = new EventSourcePlus(`${proxy.url}/v1/events?topic=news/%2B`)
  const payloads: string[] = []
  let live = 0
  const controller = source.listen({
    onMessage: ({ event, data }) => {
      if (event === 'live') live++
      else if (event === 'message') payloads.push(JSON.parse(data).payload)
      else if (event !== 'welcome') payloads.push(`${event}: ${data}`)
    },
  })
  onTestFinished(() => controller.abort())
  let published = 0
  const publish = async (): Promise<void> => {
    const url = `${gateway.urls.http}/v1/publish?topic=news/europe`
    expect((await fetch(url, { method: 'POST', body: String(published++) })).status).toBe(201)
  }
  // The first cut comes before its first event: it has nothing but its place.
  for (let cuts = 0; cuts < 10; cuts++) {
    await eventually(() => live > cuts)
    for (let more = cuts; more > 0; more--) await publish()
    if (cuts % 2 === 0) await eventually(() => payloads.length === published)
    proxy.cut()
    await publish()
  }
  await eventually(() => payloads.length >= published)
  expect(payloads).toEqual(Array.from({ length: published }, (_, index) => String(index)))
})
