#!/usr/bin/env node
import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { nearestName, suggestion } from './base/suggestion.js'
import { version } from './base/version.js'
import { restartWithHeapFlags } from './commands/heap-flags.js'
import { flags, variableOf } from './config/flags.js'
import { ConfigError } from './config/problems.js'

/** Runs a command with the arguments after its name. @returns the exit code */
type Command = (argv: readonly string[], env: NodeJS.ProcessEnv) => Promise<number>

interface CommandRow {
  readonly usage: string
  readonly summary: string
  /** Further text of `mqway <command> --help`. */
  readonly details: () => string
  /** Imports only what the command needs. */
  readonly load: () => Promise<Command>
}

const commands: Record<string, CommandRow> = {
  serve: {
    usage: 'mqway [serve] [options]',
    summary: 'put MQTT topics into the browser',
    details: () =>
      `Without options: http://localhost:8080, https://localhost:8443, /mqtt on both, and a built-in broker on 1883.\n\n${optionHelp()}`,
    load: async () => {
      const { serve } = await import('./commands/serve.js')
      return serve
    },
  },
  check: {
    usage: 'mqway check [options]',
    summary: 'validate the configuration and print what is in effect, without secrets',
    details: () =>
      'What it prints can be used as a configuration file. With --diff, it asks the running mqway instead, and prints which\n' +
      `options a reload would change, and which of them need a restart.\n\n${optionHelp()}`,
    load: async () => {
      const { check } = await import('./commands/check.js')
      return check
    },
  },
  reload: {
    usage: 'mqway reload [options]',
    summary: 'check the configuration, and have the running mqway reload it',
    details: () =>
      'Prints which options have changed, and which of them need a restart. Needs the option control, a Unix socket of the\n' +
      `running mqway. Without it, SIGHUP does the same, and the log says what has changed.\n\n${optionHelp()}`,
    load: async () => {
      const { reload } = await import('./commands/reload.js')
      return reload
    },
  },
  import: {
    usage: 'mqway import LIGHTTPD.CONF',
    summary: 'print the mqway.yaml that does what a lighttpd.conf did',
    details: () =>
      'Reads mod_websocket and mod_wstunnel. What cannot be carried over is named on standard error, with its line:\n\n' +
      '  mqway import /etc/lighttpd/lighttpd.conf > mqway.yaml && mqway check && mqway serve\n',
    load: async () => {
      const { importLighttpdCommand } = await import('./commands/import.js')
      return importLighttpdCommand
    },
  },
  supervisor: {
    usage: 'mqway supervisor [options]',
    summary: 'publish the states of supervisord’s processes, as its event listener',
    details: () =>
      'Is started by supervisord:\n\n' +
      '  [eventlistener:mqway]\n' +
      '  command=mqway supervisor --url mqtt://127.0.0.1:1883\n' +
      '  events=PROCESS_STATE\n' +
      '  buffer_size=1000\n\n' +
      'The state of each process is the retained message of supervisor/<group>/<process>/<state>. supervisord is told that\n' +
      'an event is done with when the broker has acknowledged it, and sends it again otherwise.\n\n' +
      'Options (each is also an environment variable, such as MQWAY_SUPERVISOR_URL):\n' +
      '  --url URL              mqtt://[user@]host:port, mqtts://[user@]host:port, unix:/path; mqtt://127.0.0.1:1883\n' +
      '  --password-file FILE   file with the password; or the password itself as MQWAY_SUPERVISOR_PASSWORD\n' +
      '  --ca FILE              mqtts: CA certificates that may sign the broker’s certificate (PEM)\n' +
      '  --cert FILE            mqtts: client certificate (PEM)\n' +
      '  --key FILE             mqtts: its private key (PEM)\n' +
      '  --topic PREFIX         what the topics begin with: supervisor. Another one for each machine of a broker\n' +
      '  --timeout TIME         how long an event waits for the broker before supervisord has to keep it: 10s\n',
    load: async () => {
      const { supervisor } = await import('./commands/supervisor.js')
      return supervisor
    },
  },
  passwd: {
    usage: 'mqway passwd FILE USER [-]',
    summary: 'add a user to the password file, or give them a new password',
    details: () =>
      'Asks twice, without showing what is typed; with - the password is one line of standard input. The file is that of\n' +
      'access.htpasswd, and is made where there is none:\n\n' +
      '  mqway passwd /etc/mqway/users alice\n',
    load: async () => {
      const { passwd } = await import('./commands/passwd.js')
      return passwd
    },
  },
  token: {
    usage: 'mqway token --user USER',
    summary: 'print a token (JWT), signed with the configured secret',
    details: () =>
      'The secret is that of access.jwt. Each of --role, --publish and --subscribe may come several times; without any\n' +
      '--publish and --subscribe the user has what the rules of the configuration give:\n\n' +
      "  mqway token --user alice --publish 'chat/%u/#' --subscribe 'chat/#' --expires 1h\n\n" +
      'Options:\n' +
      '  --user USER            the user of the token\n' +
      '  --role ROLE            a role of the user\n' +
      '  --publish FILTER       topics to publish to; %u is the user, %c the client id\n' +
      '  --subscribe FILTER     topics to subscribe to\n' +
      '  --expires TIME         15m, 1h, 30d; 1h when left out\n' +
      '  --config FILE          configuration file; ./mqway.yaml when there is one\n',
    load: async () => {
      const { token } = await import('./commands/token.js')
      return token
    },
  },
}

/**
 * Runs the program.
 *
 * @param args the command line without interpreter and program
 * @returns the exit code: 0 clean, 1 failed while running, 2 usage or configuration, 69 an address could not be bound, or a file or
 *   directory that `serve` needs could not be used
 */
export async function main(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const { name, argv } = splitCommand(args)
  if (name === 'version' || (name === undefined && argv[0] === '-v') || argv.includes('--version')) {
    process.stdout.write(`${version}\n`)
    return 0
  }
  const wantsHelp = name === 'help' || argv.includes('--help') || argv.includes('-h')
  const about = name === 'help' ? argv.find(arg => !arg.startsWith('-')) : name
  const command = commandOf(about ?? 'serve')
  if (command === undefined) {
    const nearest = nearestName(about ?? '', [...Object.keys(commands), 'help', 'version'])
    const text = `mqway: ${about} is not a command${suggestion(nearest, '.')} See mqway --help`
    process.stderr.write(`${text}\n`)
    return 2
  }
  if (wantsHelp) {
    process.stdout.write(about === undefined ? programHelp() : commandHelp(command))
    return 0
  }
  try {
    const run = await command.load()
    return await run(argv, env)
  } catch (error) {
    if (error instanceof ConfigError) {
      process.stderr.write(error.problems.map(problem => `${problem}\n`).join(''))
      return 2
    }
    process.stderr.write(`mqway: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    return 1
  }
}

function commandOf(name: string): CommandRow | undefined {
  return Object.hasOwn(commands, name) ? commands[name] : undefined
}

/**
 * Finds the command: the first argument, or the one after the flags of `serve`, as in `mqway --data none serve`.
 *
 * @returns the command's name, if there is one, and the other arguments
 */
function splitCommand(args: readonly string[]): { name: string | undefined; argv: readonly string[] } {
  let at = 0
  while (flags.some(({ name }) => args[at] === `--${name}` || args[at]?.startsWith(`--${name}=`))) {
    at += args[at]?.includes('=') ? 1 : 2
  }
  const name = args[at]
  const isName = name !== undefined && !name.startsWith('-') && (at === 0 || commandOf(name) !== undefined)
  return isName ? { name, argv: [...args.slice(0, at), ...args.slice(at + 1)] } : { name: undefined, argv: args }
}

const moreHelp = `  ${'mqway help [COMMAND]'.padEnd(28)} this text, or that of a command; also -h, --help
  ${'mqway version'.padEnd(28)} print the version; also -v, --version
`

function programHelp(): string {
  const rows = Object.values(commands).map(({ usage, summary }) => `  ${usage.padEnd(28)} ${summary}`)
  return `mqway ${version}: MQTT topics in the browser\n\n${rows.join('\n')}\n${moreHelp}\n${optionHelp()}`
}

function commandHelp({ usage, summary, details }: CommandRow): string {
  return `${usage}\n\n${summary[0]?.toUpperCase()}${summary.slice(1)}.\n${details()}`
}

function optionHelp(): string {
  const rows = flags.map(({ name, value, help }) => `  ${`--${name} ${value}`.padEnd(22)} ${help}`)
  const example = variableOf('http-port')
  return `Options (each is also an environment variable, such as ${example}):\n${rows.join('\n')}\n`
}

/** Whether this file was started, also by a link in `node_modules/.bin`, and not imported. */
function isProgram(): boolean {
  const [, started] = process.argv
  return started !== undefined && realpathSync(started) === fileURLToPath(import.meta.url)
}

if (isProgram()) {
  // `mqway check | head` closes the pipe early, which is no failure.
  process.stdout.on('error', error => {
    if (!('code' in error) || error.code !== 'EPIPE') throw error
  })
  const args = process.argv.slice(2)
  if ((splitCommand(args).name ?? 'serve') === 'serve') restartWithHeapFlags()
  process.exitCode = await main(args, process.env)
}
