// A TCP echo server in a separate process: the control of a measurement, which shows the delay of the machine itself.
import { createServer } from 'node:net'

const server = createServer({ noDelay: true }, socket => socket.on('error', () => {}).pipe(socket))
server.listen(0, '127.0.0.1', () => process.send(server.address().port))
process.once('disconnect', () => process.exit(0))
