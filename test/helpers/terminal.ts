import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** Runs a program on a pseudo-terminal, which Node cannot open: waits for each text and then types the next. */
const script = `
import json, os, pty, sys
command, steps = json.loads(sys.argv[1])
pid, fd = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
shown = b''
def read():
    global shown
    try:
        chunk = os.read(fd, 4096)
    except OSError:
        chunk = b''
    shown += chunk
    return chunk
for wanted, typed in steps:
    begin = len(shown)
    while wanted.encode() not in shown[begin:]:
        if not read():
            break
    os.write(fd, typed.encode())
while read():
    pass
status = os.waitpid(pid, 0)[1]
print(json.dumps({'shown': shown.decode(), 'code': os.waitstatus_to_exitcode(status)}))
`

/** The output on the terminal, and the program's exit code. */
export interface TerminalResult {
  readonly shown: string
  readonly code: number
}

/**
 * Runs a program on a terminal; needs `/usr/bin/python3`.
 *
 * @param steps texts to wait for, each with the input that follows
 */
export async function onTerminal(
  command: readonly string[],
  steps: readonly (readonly [wanted: string, typed: string])[],
  cwd: string,
): Promise<TerminalResult> {
  const child = spawn('/usr/bin/python3', ['-c', script, JSON.stringify([command, steps])], { cwd, stdio: 'pipe' })
  let output = ''
  child.stdout.on('data', chunk => {
    output += chunk
  })
  await once(child, 'close')
  return JSON.parse(output)
}
