// A TCP echo server in a process of its own: the control of a measurement. What its round trips take is the machine's doing.
import { createServer } from 'node:net'

const server = createServer({ noDelay: true }, socket => socket.on('error', () => {}).pipe(socket))
server.listen(0, '127.0.0.1', () => process.send(server.address().port))
process.once('disconnect', () => process.exit(0))
