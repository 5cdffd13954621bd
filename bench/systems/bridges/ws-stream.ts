/** `ws.createWebSocketStream`, piped both ways. */
import { pipeline } from 'node:stream'
import { createWebSocketStream, WebSocketServer } from 'ws'
import { connectUpstream, listen } from './server.js'

const ignore = (): void => {}

new WebSocketServer({ server: listen(), perMessageDeflate: false }).on('connection', socket => {
  const stream = createWebSocketStream(socket)
  pipeline(stream, connectUpstream(), stream, ignore)
})
