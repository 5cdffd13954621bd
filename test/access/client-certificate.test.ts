import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ClientCertificate, readClientCertificate } from '../../src/access/client-certificate.js'
import { describeWith } from '../helpers/requires.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-client-certificates-'))
afterAll(() => rmSync(directory, { recursive: true }))

const file = (name: string): string => join(directory, name)
const pem = (name: string): string => readFileSync(file(name), 'utf8')
function openssl(...args: string[]): void {
  execFileSync('openssl', args, { cwd: directory, stdio: 'ignore' })
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

function makeCa(name: string): void {
  openssl(
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    `${name}.key`,
    '-out',
    `${name}.pem`,
    '-subj',
    `/CN=${name}`,
    '-days',
    '1',
  )
}

/** A client's certificate, signed by `ca`. */
function issue(name: string, subject: string, ca: string, names?: string): void {
  openssl('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', subject, '-utf8')
  const sign = ['x509', '-req', '-in', `${name}.csr`, '-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-CAcreateserial']
  writeFileSync(file(`${name}.ext`), names === undefined ? '' : `subjectAltName=@names\n[names]\n${names}\n`)
  openssl(...sign, '-out', `${name}.pem`, '-days', '1', '-extfile', `${name}.ext`)
}

/** What a TLS server with `ca.pem` reads of a client that shows this certificate. */
async function shown(
  name: string | undefined,
  user: 'cn' | 'san',
  crl?: string,
): Promise<ClientCertificate | undefined> {
  const server = tls.createServer({
    cert: pem('ca.pem'),
    key: pem('ca.key'),
    ca: pem('ca.pem'),
    ...(crl === undefined ? {} : { crl: pem(crl) }),
    requestCert: true,
    rejectUnauthorized: false,
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const own = name === undefined ? {} : { cert: pem(`${name}.pem`), key: pem(`${name}.key`) }
  const client = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...own })
  const [socket] = (await once(server, 'secureConnection')) as [tls.TLSSocket]
  const certificate = readClientCertificate(socket, user)
  client.destroy()
  socket.destroy()
  server.close()
  return certificate
}

describeWith('openssl', 'a client certificate', () => {
  beforeAll(() => {
    makeCa('ca')
    makeCa('other')
    issue('alice', '/O=Example/CN=alice', 'ca', 'email.1=alice@a.example\nDNS.1=alice.example')
    issue('comma', '/CN=x\\, CN=admin', 'ca', 'otherName.1=1.2.3.4;UTF8:admin\nemail.1=x, DNS:admin')
    issue('two', '/CN=alice/CN=admin', 'ca', 'DNS.1=two.example\nemail.1=two@a.example')
    issue('none', '/O=Example', 'ca')
    issue('foreign', '/CN=alice', 'other')
  })

  it.each([
    ['alice', 'cn', 'alice'],
    ['alice', 'san', 'alice@a.example'],
    ['two', 'san', 'two.example'],
    ['two', 'cn', undefined],
    ['none', 'cn', undefined],
    ['none', 'san', undefined],
    ['comma', 'cn', 'x, CN=admin'],
    ['comma', 'san', 'x, DNS:admin'],
  ] as const)('%s has as its %s the user %s', async (name, user, expected) => {
    const certificate = await shown(name, user)
    expect(certificate).toMatchObject({ user: expected, problem: undefined })
    const left = (certificate?.expires ?? 0) - Date.now()
    expect(left / 3_600_000).toBeGreaterThan(23)
    expect(left / 3_600_000).toBeLessThan(25)
  })

  it('is no certificate where none is shown', async () => {
    expect(await shown(undefined, 'cn')).toBeUndefined()
  })

  it('of another CA is not valid', async () => {
    expect((await shown('foreign', 'cn'))?.problem).toMatch(/UNABLE_TO|unable to/)
  })

  it('that was revoked is not valid', async () => {
    writeFileSync(file('index.txt'), '')
    writeFileSync(file('number'), '01\n')
    writeFileSync(
      file('ca.cnf'),
      '[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=1\n',
    )
    const ca = ['ca', '-config', 'ca.cnf', '-cert', 'ca.pem', '-keyfile', 'ca.key']
    openssl(...ca, '-revoke', 'alice.pem')
    openssl(...ca, '-gencrl', '-out', 'revoked.pem')
    expect((await shown('alice', 'cn', 'revoked.pem'))?.problem).toBe('CERT_REVOKED')
    expect((await shown('two', 'san', 'revoked.pem'))?.problem).toBeUndefined()
  })
})
