/** `websocket-stream`, piped both ways. */
import { pipeline } from 'node:stream'
import websocketStream from 'websocket-stream'
import { connectUpstream, listen } from './server.js'

const ignore = (): void => {}

websocketStream.createServer({ server: listen(), perMessageDeflate: false }).on('stream', stream => {
  pipeline(stream, connectUpstream(), stream, ignore)
})
