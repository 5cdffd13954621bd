import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type ConfigInput, configSchema } from '../../../src/config/schema.js'
import { importLighttpd } from '../../../src/import/lighttpd/lighttpd.js'

const tunnel = 'wstunnel.server = ( "/mqtt" => ( ( "host" => "b", "port" => 1883 ) ) )\n'

/** The imported configuration, what a person has to decide, and everything that is reported. */
function imported(text: string) {
  const given = { fileName: 'l.conf', readInclude: () => [], env: {}, cwd: '/cwd' }
  const { yaml, findings } = importLighttpd(`${tunnel}${text}`, given)
  const config: ConfigInput = parse(yaml)
  configSchema.parse(config)
  const messages = findings.map(({ message }) => message)
  return { config, decisions: findings.filter(each => each.needsDecision).map(({ message }) => message), messages }
}

describe('response headers', () => {
  test('are carried over with the conditions of their block', () => {
    const { config, decisions } = imported(`setenv.set-response-header = ( "X-Frame-Options" => "DENY" )
$HTTP["url"] =^ "/assets/" { setenv.add-response-header = ( "Cache-Control" => "max-age=60" ) }
$HTTP["host"] == "a.example" { setenv.add-response-header = ( "Cache-Control" => "no-store" ) }`)
    expect(config.headers).toEqual([
      { pathPrefix: '/assets/', set: { 'Cache-Control': 'max-age=60' } },
      { hosts: ['a.example'], set: { 'Cache-Control': 'no-store' } },
      { set: { 'X-Frame-Options': 'DENY' } },
    ])
    expect(decisions).toEqual([])
  })

  test('of expire.url are Cache-Control', () => {
    const { config, decisions } = imported(
      'expire.url = ( "/img/" => "access plus 1 days 12 hours", "" => "access 10 minutes", "/x" => "modification plus 1 hours" )',
    )
    expect(config.headers).toEqual([
      { pathPrefix: '/img/', set: { 'Cache-Control': 'max-age=129600' } },
      { pathPrefix: '/', set: { 'Cache-Control': 'max-age=600' } },
    ])
    expect(decisions).toEqual([expect.stringContaining('expire.url: "/x" is not carried over')])
  })

  test.each([
    ['"Content-Encoding" => "gzip"', 'the header Content-Encoding is not carried over: must not be set'],
    ['"X A" => "b"', 'the header X A is not carried over'],
    ['"X-A" => ""', 'the header X-A is not carried over'],
  ])('%s is not carried over, and a person is told', (entry, reason) => {
    const { config, decisions } = imported(`setenv.set-response-header = ( ${entry} )`)
    expect(config.headers).toBeUndefined()
    expect(decisions).toEqual([expect.stringContaining(reason)])
  })

  test('that replace others under a condition, or are for one port of several, are for a person to look at', () => {
    const tls = '$SERVER["socket"] == ":443" { ssl.engine = "enable" ssl.pemfile = "/c" '
    const { config, decisions } = imported(`setenv.add-response-header = ( "X-A" => "1" )
$HTTP["url"] =^ "/b" { setenv.add-response-header = ( "X-B" => "1" ) }
${tls} setenv.set-response-header = ( "Strict-Transport-Security" => "max-age=1" ) }`)
    expect(config.headers).toHaveLength(3)
    expect(decisions).toEqual([expect.stringContaining('in lighttpd this list replaces the one before it')])
    const other = imported(`${tls} setenv.set-response-header = ( "X-C" => "1" ) }`)
    expect(other.decisions).toEqual([expect.stringContaining('mqway sends X-C on every port')])
  })

  test('are left out where lighttpd has not loaded their module', () => {
    const { config } = imported('server.modules = ( "mod_wstunnel" )\nsetenv.set-response-header = ( "X-A" => "b" )')
    expect(config.headers).toBeUndefined()
  })
})

describe('compression', () => {
  test('has the types, the codings and the threshold of mod_deflate', () => {
    const { config, messages } = imported(`deflate.mimetypes = ( "text/", "application/javascript" )
deflate.allowed-encodings = ( "brotli", "gzip", "deflate" )
deflate.min-compress-size = 512
deflate.cache-dir = "/var/cache"`)
    expect(config.compression).toEqual({
      types: ['text/*', 'application/javascript'],
      encodings: ['br', 'gzip'],
      threshold: '512B',
    })
    expect(messages).toContain('deflate.allowed-encodings: mqway has no deflate')
    expect(messages).toContainEqual(expect.stringContaining('deflate.cache-dir is left out'))
  })

  test('is that of mod_compress in earlier versions', () => {
    expect(imported('compress.filetype = ( "text/plain", "text/html" )').config.compression).toEqual({
      types: ['text/plain', 'text/html'],
    })
  })

  test('is left as it is for all types, and under a condition', () => {
    expect(imported('deflate.mimetypes = ( "" )').config.compression).toBeUndefined()
    const { config, messages } = imported('$HTTP["url"] =^ "/a" { deflate.mimetypes = ( "text/" ) }')
    expect(config.compression).toBeUndefined()
    expect(messages).toContainEqual(expect.stringContaining('mqway has one for all'))
  })
})

describe('the access log', () => {
  const file = 'accesslog.filename = "/var/log/lighttpd/access.log"\n'

  test.each([
    ['', undefined, 0],
    ['accesslog.format = "%h %l %u %t \\"%r\\" %>s %b"', 'common', 0],
    ['accesslog.format = "%h %V %u %t \\"%r\\" %>s %b \\"%{Referer}i\\" \\"%{User-Agent}i\\""', undefined, 0],
    ['accesslog.format = "%h %D"', undefined, 1],
    ['accesslog.format = "{ \\"ip\\": \\"%h\\" }"', 'json', 1],
  ])('with %j has the format %s', (text, format, count) => {
    const { config, decisions } = imported(file + text)
    expect(config.accessLog).toEqual({ file: '/var/log/lighttpd/access.log', ...(format && { format }) })
    expect(decisions).toHaveLength(count)
  })

  test('for a program is not carried over', () => {
    const { config, decisions } = imported('accesslog.filename = "|/usr/bin/cronolog x"')
    expect(config.accessLog).toBeUndefined()
    expect(decisions).toEqual([expect.stringContaining('mqway starts no program')])
  })
})

test('index files are those of lighttpd', () => {
  const { config } = imported('server.document-root = "/srv"\nindex-file.names = ( "start.html", "index.html" )')
  expect(config.index).toEqual(['start.html', 'index.html'])
})
