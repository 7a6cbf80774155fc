"""A mail server (aiosmtpd) on a port of the system's choice. Prints `port N`, then a line of JSON for each recipient's mail."""

import argparse
import asyncio
import json
import ssl

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

arguments = argparse.ArgumentParser()
arguments.add_argument("--security", choices=["none", "starttls", "tls"], default="none")
arguments.add_argument("--certificate")
arguments.add_argument("--key")
arguments.add_argument("--user")
arguments.add_argument("--password")
arguments.add_argument("--greylist", type=int, default=0, help="so many recipients are put off with 451")
arguments.add_argument("--refuse", help="a recipient that is refused with 550")
arguments.add_argument("--defer", help="a recipient that is put off with 451 for ever")
options = arguments.parse_args()


class Handler:
    def __init__(self):
        self.put_off = 0

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address == options.refuse:
            return "550 5.1.1 no such user"
        if address == options.defer:
            return "451 4.2.2 mailbox is full"
        if self.put_off < options.greylist:
            self.put_off += 1
            return "451 4.7.1 greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.content.decode("ascii"),
            "tls": session.ssl is not None or options.security == "tls",
            "user": session.auth_data.login.decode() if session.auth_data else None,
        }
        print(json.dumps(mail), flush=True)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    known = isinstance(data, LoginPassword) and data.login.decode() == options.user
    known = known and data.password.decode() == options.password
    return AuthResult(success=known, auth_data=data if known else None)


async def main():
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    handler = Handler()

    def protocol():
        return SMTP(
            handler,
            tls_context=context if options.security == "starttls" else None,
            require_starttls=options.security == "starttls",
            authenticator=authenticate if options.user else None,
            auth_required=bool(options.user),
            # A server that speaks TLS from the start does not know that it does.
            auth_require_tls=options.security == "starttls",
        )

    implicit = context if options.security == "tls" else None
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=implicit)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
