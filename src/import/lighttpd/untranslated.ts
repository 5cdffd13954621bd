import { conditionText } from './conditions.js'
import { type Scope, type Setting, textsOf } from './evaluate.js'
import type { Report } from './report.js'
import type { Position } from './tokens.js'

/** Directives without a difference for clients. */
const needless = new Set([
  'server.pid-file',
  'server.errorlog',
  'server.breakagelog',
  'server.upload-dirs',
  'server.name',
  'server.tag',
  'server.event-handler',
  'server.network-backend',
  'server.max-read-idle',
  'server.max-write-idle',
  'server.max-keep-alive-idle',
  'server.max-keep-alive-requests',
  'server.max-fds',
  'server.max-worker',
  'server.feature-flags',
  'server.http-parseopts',
  'server.compat-module-load',
  'server.stream-request-body',
  'server.stream-response-body',
  'server.core-files',
  'server.follow-symlink',
  'mimetype.assign',
  'mimetype.use-xattr',
  'etag.use-inode',
  'etag.use-mtime',
  'etag.use-size',
  'websocket.debug',
  'wstunnel.debug',
  'ssl.use-sslv2',
  'ssl.use-sslv3',
  // Certificate authorities close their OCSP servers; browsers have lists of revoked certificates.
  'ssl.stapling-file',
])

/** Directives of features that mqway does not have, and that restrict nothing. */
const lessAvailable = /^(dir-listing|dirlisting|deflate|compress|status|accesslog|expire|rrdtool|cml)\./

/** Modules with translated or unneeded directives. */
const knownModules = new Set(
  'websocket wstunnel openssl setenv indexfile staticfile access auth authn_file redirect extforward accesslog compress deflate expire alias cgi fastcgi scgi proxy'
    .split(' ')
    .map(name => `mod_${name}`),
)

/** Reports every untranslated directive, at each of its lines. */
export function reportUntranslated(scopes: readonly Scope[], taken: ReadonlySet<Setting>, report: Report): void {
  for (const { settings, tests } of scopes) {
    const condition = tests.length === 0 ? '' : `: it stands under the condition ${conditionText(tests)}`
    for (const setting of settings.values()) {
      const { name, lines } = setting
      if (/^(var|env)\./.test(name) || (taken.has(setting) && !needless.has(name))) continue
      for (const at of lines) {
        if (name === 'server.modules') reportModules(setting, report)
        else if (name === 'server.username' || name === 'server.groupname' || name === 'server.chroot')
          reportUser(name, setting, at, report)
        else if (name === 'server.systemd-socket-activation')
          report.warn(
            at,
            `${name} is not carried over: mqway listens on the ports that stand here, and not on those of systemd`,
          )
        else if (needless.has(name)) report.note(at, `${name} is left out: mqway does without it${condition}`)
        else if (lessAvailable.test(name)) report.note(at, `${name} is left out: mqway has nothing like it${condition}`)
        else report.warn(at, `${name} is not carried over${condition}`)
      }
    }
  }
}

function reportModules({ value, at }: Setting, report: Report): void {
  const others = textsOf(value).filter(name => !knownModules.has(name))
  if (others.length > 0) report.note(at, `server.modules: mqway has nothing in the place of ${others.join(', ')}`)
}

function reportUser(name: string, { value }: Setting, at: Position, report: Report): void {
  const who = JSON.stringify(textsOf(value).join())
  if (name === 'server.chroot') {
    const advice = 'mqway changes no root directory; systemd does (RootDirectory=), and then the paths here are right'
    report.warn(at, `${name} = ${who} is not carried over: ${advice}`)
    return
  }
  const advice = `mqway does not change its user: start it as ${who} (systemd: User=, Group=, and AmbientCapabilities=CAP_NET_BIND_SERVICE for ports below 1024)`
  report.note(at, `${name} is left out: ${advice}`)
}
