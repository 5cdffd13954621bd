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
  ['expire.', 'mod_expire'],
  ['deflate.', 'mod_deflate'],
  ['compress.', 'mod_compress'],
  ['accesslog.', 'mod_accesslog'],
  ['extforward.', 'mod_extforward'],
]

/** The modules of `server.modules`. Without that directive, all count as loaded: the file may be included by another one. */
export class Modules {
  readonly #setting: Setting | undefined

  constructor({ global }: Evaluated) {
    this.#setting = global.settings.get('server.modules')
  }

  /** Whether a module is loaded. */
  has(name: string): boolean {
    return this.#setting === undefined || textsOf(this.#setting.value).includes(name)
  }

  /** Warns about directives that lighttpd ignores because their module is not loaded. */
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
