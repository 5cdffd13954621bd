import { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { configOf } from '../../src/config/load.js'
import type { ConfigInput } from '../../src/config/schema.js'
import { checkInheritedSockets, takeInheritedSockets } from '../../src/server/inherited-sockets.js'

function check(purpose: 'http' | 'mqtt', host: string, port: number, input: ConfigInput): void {
  const { config } = configOf({ anonymous: true, https: { port: 'off' }, ...input }, { cwd: '.' })
  checkInheritedSockets([{ purpose, host, port, socket: new Socket() }], config)
}

describe('a socket of systemd', () => {
  it('is that of a listener with the same port and address', () => {
    check('http', '127.0.0.1', 80, { http: { port: 80 } })
    check('http', '::1', 80, { http: { port: [8080, 80], host: 'localhost' } })
    check('http', '0.0.0.0', 80, { http: { port: 80, host: '::' } })
    check('http', '192.0.2.1', 80, { http: { port: 80 }, host: ['127.0.0.1', '192.0.2.1'] })
  })

  it('is refused where the configuration has another port, or none', () => {
    expect(() => check('http', '127.0.0.1', 80, {})).toThrow(
      'the socket “http” of systemd is port 80 on 127.0.0.1, but http.port is 8080: both must be the same',
    )
    expect(() => check('mqtt', '127.0.0.1', 80, { mqtt: { port: 'off' } })).toThrow('but mqtt.port is off')
  })

  it('is refused where other machines reach it and the configuration says that they do not', () => {
    for (const host of ['0.0.0.0', '::', '192.0.2.1']) {
      expect(() => check('http', host, 80, { http: { port: 80 } })).toThrow(
        `the socket “http” of systemd is port 80 on ${host}, but host is 127.0.0.1: both must be the same (such as ListenStream=127.0.0.1:80)`,
      )
    }
    expect(() => check('http', '192.0.2.2', 80, { http: { port: 80, host: '192.0.2.1' } })).toThrow('http.host is')
  })

  it('needs the name of a listener, and variables that are for this process', () => {
    const variables = { LISTEN_PID: '7', LISTEN_FDS: '1', LISTEN_FDNAMES: 'web.socket' }
    expect(() => takeInheritedSockets({ ...variables }, 7)).toThrow(
      'the socket “web.socket” of systemd needs a name: FileDescriptorName= http, https, mqtt, mqtts',
    )
    for (const count of ['0', '65', 'x', '-1']) {
      expect(() => takeInheritedSockets({ ...variables, LISTEN_FDS: count }, 7)).toThrow('must be a number of sockets')
    }
    const others = { ...variables }
    expect(takeInheritedSockets(others, 8)).toEqual([])
    expect(others).toEqual(variables)
  })
})
