"""A mail server for tests, which tells of each mail that it takes with a line of JSON.

usage: smtp_server.py HOST PORT CERT KEY take|refuse|stranger|plain|tls

It requires STARTTLS and a login; `refuse` takes no mail, `stranger` does not know who sends, `plain` has neither STARTTLS nor a login,
and `tls` speaks TLS from the start.
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

host, port, cert, key, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]


def tell(**said):
    print(json.dumps(said), flush=True)


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        if mode == "stranger":
            return "553 This is not your address"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 There is no such mailbox"
        if address.startswith("later@"):
            return "450 Not now"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if mode == "refuse":
            tell(refused=True)
            return "451 Not now"
        tell(
            sender=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            data=envelope.content.decode("latin-1"),
            user=session.auth_data,
            tls=mode == "tls" or session.ssl is not None,
        )
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    if (data.login, data.password) == (b"mqway", b"right"):
        return AuthResult(success=True, auth_data="mqway")
    return AuthResult(success=False, handled=False)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    loop = asyncio.get_running_loop()

    def protocol():
        if mode in ("plain", "tls"):
            return SMTP(Handler(), hostname="localhost", loop=loop)
        return SMTP(
            Handler(),
            hostname="localhost",
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticate,
            loop=loop,
        )

    server = await loop.create_server(protocol, host, port, ssl=context if mode == "tls" else None)
    tell(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
