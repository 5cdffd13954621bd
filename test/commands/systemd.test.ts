import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { type RunningProgram, run } from '../helpers/processes.js'
import { mqway } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'

const program = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))
const python = '/usr/bin/python3'
const helper = (name: string): string => fileURLToPath(new URL(name, import.meta.url))
const onlyHttp = ['--data', 'none', '--https-port', 'off', '--mqtt-port', 'off', '--log-format', 'json']

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'mqway-systemd-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

function stopped(running: RunningProgram): RunningProgram {
  onTestFinished(() => running.stop('SIGKILL'))
  return running
}

/** The program with a socket that stays open when it ends, and is then given to the next one. */
async function activated(name: string, args: readonly string[]) {
  const command = [name, process.execPath, program, 'serve', ...onlyHttp, ...args]
  const running = run(python, [helper('socket-activation.py'), ...command], { cwd: directory() })
  let child = 0
  onTestFinished(() => running.stop())
  const port = Number(await running.line())
  const next = async (wanted: RegExp): Promise<string> => {
    for (;;) {
      const line = await running.line()
      if (/^\d+$/.test(line)) child = Number(line)
      if (wanted.test(line)) return line
    }
  }
  return { running, port, next, pid: () => child }
}

/** One request on a connection of its own. @returns its status, or the error's code */
function ask(port: number): Promise<number | string> {
  return new Promise(resolve => {
    const asked = request({ host: '127.0.0.1', port, path: '/healthz', agent: false }, response => {
      response.resume().once('end', () => resolve(response.statusCode ?? 0))
    })
    asked.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    asked.end()
  })
}

describeWith([python], 'the sockets of systemd', () => {
  it('refuse no connection while the program restarts', async () => {
    const { port, next, pid } = await activated('http', [])
    await next(/mqway is ready/)
    const outcomes: (number | string)[] = []
    const pending = new Set<Promise<unknown>>()
    const timer = setInterval(() => {
      const asked = ask(port).then(outcome => outcomes.push(outcome))
      pending.add(asked)
      asked.finally(() => pending.delete(asked))
    }, 2)
    onTestFinished(() => clearInterval(timer))
    for (let restarts = 0; restarts < 2; restarts++) {
      process.kill(pid(), 'SIGTERM')
      await next(/^exit 0$/)
      await next(/mqway is ready/)
    }
    clearInterval(timer)
    await Promise.all(pending)
    expect(outcomes.length).toBeGreaterThan(50)
    expect(outcomes.filter(outcome => outcome !== 200)).toEqual([])
  })

  it('are taken by one process only, not by its workers', async () => {
    const cwd = directory()
    writeFileSync(join(cwd, 'mqway.yaml'), 'workers: 2\nbroker: mqtt://127.0.0.1:1\npush: off\n')
    const { running, next } = await activated('http', ['--config', join(cwd, 'mqway.yaml')])
    expect(await next(/^exit/)).toBe('exit 69')
    expect(running.errors()).toContain('workers cannot take the sockets of systemd')
  })
})

describeWith([python, 'systemd-notify'], 'systemd', () => {
  it('is told when the program serves, reloads and stops, and again and again that it runs', async () => {
    const cwd = directory()
    const socket = join(cwd, 'notify')
    const receiver = stopped(run(python, [helper('notify-socket.py'), socket]))
    expect(await receiver.line()).toBe('ready')
    const env = { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '100000' }
    const gateway = stopped(mqway(['serve', '--http-port', '0', ...onlyHttp], cwd, env))
    const next = async (wanted: RegExp): Promise<void> => {
      while (!wanted.test(await receiver.line()));
    }
    await next(/^READY=1 STATUS=Serving http:\/\/localhost:\d+ ws:/)
    await next(/^WATCHDOG=1$/)
    await next(/^WATCHDOG=1$/)
    gateway.child.kill('SIGHUP')
    await next(/^RELOADING=1 MONOTONIC_USEC=\d+$/)
    await next(/^READY=1 /)
    gateway.child.kill('SIGTERM')
    await next(/^STOPPING=1 /)
    expect(await gateway.exited()).toBe(0)
  })

  it('gets no message of the watchdog while the event loop is blocked', async () => {
    const cwd = directory()
    const socket = join(cwd, 'notify')
    const receiver = stopped(run(python, [helper('notify-socket.py'), socket]))
    expect(await receiver.line()).toBe('ready')
    const source = `
      import { ServiceManager } from ${JSON.stringify(new URL('../../dist/commands/service-manager.js', import.meta.url))}
      const manager = new ServiceManager(process.env, { warn: console.error })
      await manager.ready('blocked')
      const end = performance.now() + 300
      while (performance.now() < end);
      await manager.stopping()
      manager.close()`
    const blocked = run(process.execPath, ['--input-type=module', '-e', source], {
      env: { ...process.env, NOTIFY_SOCKET: socket, WATCHDOG_USEC: '60000' },
    })
    expect(await blocked.exited()).toBe(0)
    expect(blocked.errors()).toBe('')
    const lines = [await receiver.line()]
    while (!/^STOPPING/.test(lines.at(-1) ?? '')) lines.push(await receiver.line())
    const first = lines.indexOf('READY=1 STATUS=blocked')
    // In 300 ms, ten messages would be due.
    expect(lines.slice(first).filter(line => line === 'WATCHDOG=1').length).toBeLessThan(3)
  })
})

describeWith(['systemd-analyze'], 'the units of examples/systemd', () => {
  const units = new URL('../../examples/systemd/', import.meta.url)

  it('are taken by systemd without a word, also where there is no mosquitto', async () => {
    const cwd = directory()
    const files = readdirSync(units).map(name => {
      const text = readFileSync(new URL(name, units), 'utf8').replace('/usr/bin/mqway ', '/usr/bin/true ')
      const file = join(cwd, name)
      writeFileSync(file, text)
      // systemd does not start a service whose group is not there.
      expect(text).not.toMatch(/^SupplementaryGroups=/m)
      return file
    })
    expect(files).toHaveLength(5)
    const verify = run('systemd-analyze', ['verify', '--man=no', ...files])
    expect([await verify.exited(), verify.errors()]).toEqual([0, ''])
  })

  it('leave the service an exposure that systemd calls OK', async () => {
    const file = fileURLToPath(new URL('mqway.service', units))
    const analyze = run('systemd-analyze', ['security', '--offline=yes', '--threshold=25', '--no-pager', file])
    analyze.child.stdout.resume()
    expect(await analyze.exited()).toBe(0)
  })
})
