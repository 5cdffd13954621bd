import type { Presented } from './handshake.js'
import type { People } from './people.js'

/** Data of a gateway for its credentials. */
export interface Stage {
  readonly people: People
  /** Its URL without TLS, for tickets. */
  readonly http: string
  /** The origin of its own pages. */
  readonly page: string
}

/** A user and its credentials. */
export interface IdentityRow {
  readonly who: string
  readonly present: (stage: Stage) => Presented | Promise<Presented>
  /** Where the credential is possible: certificates with TLS, subprotocols with a WebSocket handshake. */
  readonly only?: 'tls' | 'websocket'
}

export const basic = (login: string): Presented => ({
  headers: { Authorization: `Basic ${Buffer.from(login).toString('base64')}` },
})
export const bearer = (token: string): Presented => ({ headers: { Authorization: `Bearer ${token}` } })
export const subprotocol = (token: string): Presented => ({ subprotocols: [`bearer.${token}`] })
export const cookie = (token: string, Origin?: string): Presented => ({
  headers: { Cookie: `other=1; session=${token}`, ...(Origin && { Origin }) },
})

/** A time in seconds since 1970, given in seconds from now. */
export const secondsFromNow = (offset: number): number => Math.floor(Date.now() / 1000) + offset

/** A ticket of the gateway at this URL. */
export async function ticketOf(http: string, presented: Presented): Promise<string> {
  const response = await fetch(`${http}/v1/tickets`, { method: 'POST', headers: presented.headers ?? {} })
  const body: { ticket: string } = JSON.parse(await response.text())
  return body.ticket
}

/** Accepted credentials of a gateway with the `access:` of `People`, with their users. */
export const allowedIdentities: readonly (IdentityRow & { readonly user: string })[] = [
  { who: 'user and password', present: () => basic('alice:right'), user: 'alice' },
  { who: 'a user of the webhook’s', present: () => basic('carol:hook'), user: 'carol' },
  { who: 'a token', present: async ({ people }) => bearer(await people.token()), user: 'alice' },
  {
    who: 'a token as subprotocol',
    present: async ({ people }) => subprotocol(await people.token()),
    user: 'alice',
    only: 'websocket',
  },
  {
    who: 'a cookie of the same origin',
    present: async ({ people, page }) => cookie(await people.token(), page),
    user: 'alice',
  },
  {
    who: 'a ticket',
    present: async ({ people, http }) => ({ query: `?ticket=${await ticketOf(http, bearer(await people.token()))}` }),
    user: 'alice',
  },
  { who: 'a certificate', present: ({ people }) => people.certificate('alice'), user: 'alice', only: 'tls' },
]

const denied = (
  status: number,
  who: string,
  present: IdentityRow['present'],
  only?: IdentityRow['only'],
): IdentityRow & { readonly status: number } => ({ who, present, status, ...(only && { only }) })

/** Refused credentials, with the status of the refusal. */
export const deniedIdentities: readonly (IdentityRow & { readonly status: number })[] = [
  denied(401, 'a wrong password', () => basic('alice:wrong')),
  denied(401, 'somebody whom nobody knows', () => basic('mallory:right')),
  denied(503, 'somebody while the webhook is out of order', () => basic('broken:x')),
  denied(401, 'Basic without a password', () => basic('alice')),
  denied(401, 'a scheme that is not known', () => ({ headers: { Authorization: 'Digest username="alice"' } })),
  denied(401, 'a token with another secret', async ({ people }) => bearer(await people.token({}, 'x'.repeat(32)))),
  denied(401, 'a token that has expired', async ({ people }) =>
    bearer(await people.token({ exp: secondsFromNow(-1) })),
  ),
  denied(401, 'a token that never expires', async ({ people }) => bearer(await people.token({ exp: undefined }))),
  denied(401, 'a token that is not valid yet', async ({ people }) =>
    bearer(await people.token({ nbf: secondsFromNow(60) })),
  ),
  denied(401, 'a token for another audience', async ({ people }) => bearer(await people.token({ aud: 'bank' }))),
  denied(401, 'a token without a name', async ({ people }) => bearer(await people.token({ sub: 'a\nb' }))),
  denied(401, 'an unsigned token', ({ people }) => bearer(people.forgedToken({ alg: 'none' }))),
  denied(401, 'a token signed with nothing', ({ people }) => bearer(people.forgedToken({ alg: 'HS256' }, ''))),
  denied(401, 'a token that brings its key', ({ people }) =>
    bearer(people.forgedToken({ alg: 'RS256', jwk: { kty: 'RSA' } }, 'x')),
  ),
  denied(401, 'a bad token as subprotocol', () => subprotocol('a.b.c'), 'websocket'),
  denied(401, 'a bad cookie', ({ page }) => cookie('a.b.c', page)),
  denied(403, 'a cookie without an origin', async ({ people }) => cookie(await people.token())),
  denied(403, 'a cookie of another origin', async ({ people }) => cookie(await people.token(), 'https://evil.example')),
  denied(401, 'a ticket that never was', () => ({ query: `?ticket=${'x'.repeat(43)}` })),
  denied(401, 'two tickets', () => ({ query: '?ticket=a&ticket=b' })),
  denied(401, 'a wrong password and a good certificate', ({ people }) => ({
    ...basic('alice:wrong'),
    ...people.certificate('alice'),
  })),
  denied(401, 'a certificate of another CA', ({ people }) => people.certificate('foreign'), 'tls'),
  denied(401, 'a certificate that was revoked', ({ people }) => people.certificate('revoked'), 'tls'),
]
