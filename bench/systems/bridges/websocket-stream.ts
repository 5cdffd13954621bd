/** `websocket-stream`, piped both ways. */
import { pipeline } from 'node:stream'
import { createServer } from 'websocket-stream'
import { connectUpstream, listen } from './server.js'

const ignore = (): void => {}

createServer({ server: listen(), perMessageDeflate: false }, stream => {
  pipeline(stream, connectUpstream(), stream, ignore)
})
