#!/usr/bin/env node
/*
 * RRR's WebSocket responder as an MQTT client: whoever said something over a WebSocket is answered every two seconds with
 * what they said last, until they have been silent for ten.
 *
 *   node examples/rrr/responder.js [mqtt://localhost:1883]
 */

import { argv } from 'node:process'
import { pathToFileURL } from 'node:url'
import { connectAsync } from 'mqtt'

/** What is at the end of the topics of answers: by that, they are told from what browsers say. */
const answerLevel = '/answer'

/**
 * @param {object} options
 * @param {string} options.url of the broker
 * @param {number} [options.every] how often somebody is answered, in milliseconds
 * @param {number} [options.silence] after how much of it they are not any more, in milliseconds
 * @param {(line: string) => void} [options.log]
 */
export async function startResponder({ url, every = 2_000, silence = 10_000, log = () => {} }) {
  const client = await connectAsync(url)
  /** What was said last on a topic, and when. @type {Map<string, { text: string, at: number }>} */
  const speakers = new Map()
  client.on('message', (topic, payload) => {
    if (topic.endsWith(answerLevel)) return
    log(`${topic} says ${payload}`)
    speakers.set(topic, { text: payload.toString(), at: Date.now() })
  })
  await client.subscribeAsync('httpserver/websocket/+/#', { qos: 1 })
  const timer = setInterval(() => {
    for (const [topic, { text, at }] of speakers) {
      if (Date.now() - at >= silence) {
        log(`${topic} is silent`)
        speakers.delete(topic)
      } else {
        client.publish(topic + answerLevel, JSON.stringify({ msg: `Hello! Last message received was '${text}'` }))
      }
    }
  }, every)
  return {
    /** How many are being answered. */
    get speakers() {
      return speakers.size
    },
    close: async () => {
      clearInterval(timer)
      await client.endAsync()
    },
  }
}

if (import.meta.url === pathToFileURL(argv[1] ?? '').href) {
  // biome-ignore lint/suspicious/noConsole: this is what it is for
  await startResponder({ url: argv[2] ?? 'mqtt://localhost:1883', log: console.log })
}
