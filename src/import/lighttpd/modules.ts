import { type Evaluated, type Setting, textsOf } from './evaluate.js'
import type { Report } from './report.js'

/** Directives that lighttpd ignores without their module. */
const modules: readonly (readonly [prefix: string, module: string])[] = [
  ['wstunnel.', 'mod_wstunnel'],
  ['websocket.', 'mod_websocket'],
  ['url.access-', 'mod_access'],
  ['url.redirect', 'mod_redirect'],
  ['auth.', 'mod_auth'],
  ['setenv.', 'mod_setenv'],
  ['extforward.', 'mod_extforward'],
]

/** The modules of `server.modules`. A file without it may be a part of another one, which has it. */
export class Modules {
  readonly #setting: Setting | undefined

  constructor({ global }: Evaluated) {
    this.#setting = global.settings.get('server.modules')
  }

  /** Whether a module is loaded, as far as the file says. */
  has(name: string): boolean {
    return this.#setting === undefined || textsOf(this.#setting.value).includes(name)
  }

  /** Names the directives that lighttpd ignored, of those that mqway does not. */
  warnOfIgnored({ global, blocks }: Evaluated, report: Report): void {
    for (const { settings } of [global, ...blocks]) {
      for (const { name, at } of settings.values()) {
        const [, module] = modules.find(([prefix]) => name.startsWith(prefix)) ?? []
        if (module === undefined || this.has(module)) continue
        report.warn(at, `${name}: lighttpd ignored it, as ${module} is not in server.modules`)
      }
    }
  }
}
