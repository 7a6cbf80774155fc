"""An OpenID provider whose ID tokens have a fault that the code asks for: `FAULT.NONCE`, with FAULT one of none, audience, party
(issued to another client, whatever the audience says), nonce, expired, late (ended five seconds ago, by this clock), future (valid in an hour), key, issuer,
unsigned, rotated (a sound token, signed with a key that is published from then on instead of the one before) and
unpublished. Prints its port. /asked tells how often its keys were asked for. For tests of what a client must refuse (OpenID Connect Core 1.0, 3.1.3.7)."""
import base64, json, time, urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

from joserfc import jwt
from joserfc.jwk import RSAKey

OWN = RSAKey.generate_key(2048, {"kid": "own", "use": "sig"})
KEYS = [OWN]
ASKED = 0
FOREIGN = RSAKey.generate_key(2048, {"kid": "own", "use": "sig"})


def token(fault, nonce, issuer):
    now = int(time.time())
    claims = {
        "iss": issuer if fault != "issuer" else "http://127.0.0.1:1",
        "aud": "triaged" if fault != "audience" else "another",
        "nonce": nonce if fault != "nonce" else "of another login",
        "sub": "eve", "preferred_username": "Eve", "groups": ["radiology"],
        "iat": now - 7200 if fault == "expired" else now,
        "exp": {"expired": now - 3600, "late": now - 5}.get(fault, now + 300),
    }
    if fault == "party":
        claims["azp"] = "another"
    if fault == "future":
        claims["nbf"] = now + 3600
    if fault == "unsigned":
        part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
        return f"{part({'alg': 'none'})}.{part(claims)}."
    key = FOREIGN if fault == "key" else KEYS[0]
    if fault in ("rotated", "unpublished"):
        key = RSAKey.generate_key(2048, {"kid": f"{fault} {time.time()}", "use": "sig"})
    if fault == "rotated":
        KEYS[:] = [key]
    return jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)


class Provider(BaseHTTPRequestHandler):
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        issuer = f"http://127.0.0.1:{self.server.server_port}"
        global ASKED
        if self.path == "/asked":
            return self.answer(ASKED)
        if self.path == "/jwks":
            ASKED += 1
            return self.answer({"keys": [key.as_dict(private=False) for key in KEYS]})
        self.answer({
            "issuer": issuer, "authorization_endpoint": f"{issuer}/authorize", "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/jwks", "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        fault, nonce = form["code"][0].split(".", 1)
        issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.answer({"access_token": "a", "token_type": "Bearer", "expires_in": 300, "id_token": token(fault, nonce, issuer)})

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Provider)
print(server.server_port, flush=True)
server.serve_forever()
