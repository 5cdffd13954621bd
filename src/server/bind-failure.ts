import { once } from 'node:events'
import { stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { dirname } from 'node:path'
import { formatHost } from '../access/addresses.js'
import { codeOf } from '../base/error-code.js'
import { StartError } from '../base/start-error.js'

export type Purpose = 'http' | 'https' | 'mqtt' | 'mqtts'

/** The address that could not be bound. */
export type WantedAddress = { readonly purpose: Purpose } & (
  | { readonly host: string; readonly port: number }
  | { readonly path: string }
)

/** How many of the following ports are tried for a suggestion. */
const portsToTry = 20

/** Converts the error of `listen` into a sentence with a remedy. */
export async function bindFailure(error: unknown, wanted: WantedAddress): Promise<StartError> {
  const code = codeOf(error)
  const reason =
    'path' in wanted
      ? await pathFailure(code, wanted.path, wanted.purpose)
      : await portFailure(code, wanted, wanted.purpose)
  const where = 'path' in wanted ? `unix:${wanted.path}` : `port ${wanted.port} on ${wanted.host}`
  const detail = error instanceof Error ? error.message : String(error)
  return new StartError(reason ?? `cannot listen on ${where}: ${detail}`, { cause: error })
}

async function portFailure(
  code: string,
  { host, port }: { host: string; port: number },
  purpose: Purpose,
): Promise<string | undefined> {
  const option = optionOf(purpose)
  switch (code) {
    case 'EADDRINUSE': {
      const taken = `port ${port} on ${host} is taken`
      if (purpose === 'mqtt') {
        const broker = `mqtt://${formatHost(host)}:${port}`
        return `${taken}: is mosquitto running? then: --broker ${broker} --mqtt-port off`
      }
      return `${taken}: choose another, such as ${option} ${await freePort(host, port)}`
    }
    case 'EACCES':
      return (
        `port ${port} on ${host} is not allowed for this user: choose one from 1024 on, such as ` +
        `${option} ${await freePort(host, port + 8000)}, or give the process CAP_NET_BIND_SERVICE`
      )
    case 'EADDRNOTAVAIL':
      return `this machine has no address ${host}: --host can be ${ownAddresses().join(', ')}, 0.0.0.0 or ::`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `--host ${host} is neither an address nor a name that can be resolved`
    default:
      return undefined
  }
}

/** The flag of a port; the option in the file, where there is no flag. */
function optionOf(purpose: Purpose): string {
  return purpose === 'mqtts' ? 'mqtts.port' : `--${purpose}-port`
}

async function pathFailure(code: string, path: string, purpose: Purpose): Promise<string | undefined> {
  const option = `${optionOf(purpose)} unix:${path}`
  // libuv reports a directory that is not there as EACCES.
  const hasDirectory = await stat(dirname(path)).then(
    stats => stats.isDirectory(),
    () => false,
  )
  switch (hasDirectory ? code : 'ENOENT') {
    case 'EADDRINUSE':
      return `${option}: another program listens there, or it is no socket; stop it, or choose another path`
    case 'ENOENT':
      return `${option}: the directory does not exist; make it, or choose another path`
    case 'EACCES':
    case 'EPERM':
      return `${option}: this user may not create a socket there; choose a directory that it may write to`
    case 'ENAMETOOLONG':
      return `${option}: the path is too long for a Unix socket; 107 bytes is the limit on Linux, 103 on macOS`
    default:
      return undefined
  }
}

/** The first free port after `taken`; 0, which means any, when there is none near. */
async function freePort(host: string, taken: number): Promise<number> {
  for (let port = taken + 1; port <= Math.min(taken + portsToTry, 65535); port += 1) {
    const probe = createServer()
    try {
      probe.listen({ host, port, exclusive: true })
      await once(probe, 'listening')
      return port
    } catch {
      // Taken as well.
    } finally {
      probe.close()
    }
  }
  return 0
}

function ownAddresses(): readonly string[] {
  return Object.values(networkInterfaces()).flatMap(list => (list ?? []).map(({ address }) => address))
}
