import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { run } from '../helpers/processes.js'

const program = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

it('serve has V8’s flags for short-lived buffers on Node.js 22 and later, in the process that was started', async () => {
  const options = [
    '--http-port',
    '0',
    '--https-port',
    'off',
    '--mqtt-port',
    'off',
    '--data',
    'none',
    '--log-format',
    'json',
  ]
  const running = run(process.execPath, [program, ...options])
  onTestFinished(() => running.stop())
  while (!(await running.line()).includes('is ready'));
  const command = (await readFile(`/proc/${running.child.pid}/cmdline`, 'utf8')).split('\0')
  const version = Number(process.versions.node.split('.', 1)[0])
  expect(command.includes('--external-memory-accounted-in-global-limit')).toBe(version >= 24)
  expect(command.filter(argument => argument.startsWith('--initial-old-space-size=')).length).toBe(
    version >= 22 ? 1 : 0,
  )
  expect(command.slice(-options.length - 1, -1)).toEqual(options)
})
