import { expect, it } from 'vitest'
import { connect, type Transport } from '../../src/client/mqway.js'

it.each(['websocket', 'longpoll', ''])('a transport that is called %j is refused at once', name => {
  const transports = ['sse', name] as Transport[]
  expect(() => connect({ url: 'http://127.0.0.1:9', topics: ['a'], transports })).toThrow(TypeError)
})
