/** The output of a command of `include_shell`: files, and a text. */
export interface ShellInclude {
  readonly files: readonly string[]
  readonly text?: string
}

/**
 * Returns the output of the commands that distributions use in their configuration, without running them.
 *
 * - `cat FILES…` (OpenWrt, Red Hat) prints files.
 * - Debian's `include-conf-enabled.pl` prints `conf-enabled/*.conf`, `use-ipv6.pl PORT` a socket `[::]:PORT`, and
 *   `create-mime.conf.pl` MIME types, which are not needed.
 *
 * @returns `undefined` for any other command
 */
export function shellIncludes(command: string): ShellInclude | undefined {
  const [program = '', ...args] = command.trim().split(/\s+/).map(unquoted)
  const name = program.slice(program.lastIndexOf('/') + 1)
  if (/[;&|<>`$()\\]/.test(command) || [program, ...args].some(word => /["']/.test(word))) return undefined
  switch (name) {
    case 'cat':
      return args.length > 0 && args.every(arg => !arg.startsWith('-')) ? { files: args } : undefined
    case 'include-conf-enabled.pl':
      return { files: ['conf-enabled/*.conf'] }
    case 'use-ipv6.pl': {
      const [port = '80'] = args
      if (!/^\d+$/.test(port)) return undefined
      return {
        files: [],
        text: `$SERVER["socket"] == "[::]:${port}" { ${port === '443' ? 'ssl.engine = "enable"' : ''} }`,
      }
    }
  }
  return /^create-mime\.(assign|conf)\.pl$/.test(name) ? { files: [] } : undefined
}

function unquoted(word: string): string {
  return /^(["']).*\1$/.test(word) ? word.slice(1, -1) : word
}
