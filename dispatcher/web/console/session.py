"""Who is logged in: a signed cookie that any process with the same token can read; no state.

The key is made from the console's token, so a new token ends all sessions.
"""

import base64
import hashlib
import hmac

import msgspec
from msgspec import Struct

LIFETIME = 12 * 3600  # seconds: a shift
MAX_COOKIE = 1024  # characters; a longer one is not ours


class Session(Struct, frozen=True):
    """One login."""

    who: str
    until: int  # Unix time
    nonce: str


class Sessions:
    """Makes and reads the cookies of one console token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"dispatcher console: sessions\0" + self._token).digest()

    def opens(self, token: str) -> bool:
        """Tell whether *token* is the console's; takes as long for a wrong one as for a right."""
        # Digests, so that the comparison takes the same time for tokens of any length.
        given, ours = hashlib.sha256(token.encode()), hashlib.sha256(self._token)
        return hmac.compare_digest(given.digest(), ours.digest())

    def cookie(self, session: Session) -> str:
        """Return *session* as a cookie's value."""
        payload = base64.urlsafe_b64encode(msgspec.json.encode(session)).decode()
        return f"{payload}.{self._sign('session', payload)}"

    def read(self, cookie: str | None, *, now: float) -> Session | None:
        """Return the session of a cookie; None if it is none of ours, or over."""
        if not cookie or len(cookie) > MAX_COOKIE or not cookie.isascii():
            return None
        payload, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature, self._sign("session", payload)):
            return None
        session = msgspec.json.decode(base64.urlsafe_b64decode(payload), type=Session)
        return session if now < session.until else None

    def form_token(self, session: Session) -> str:
        """Return what a form of this session must bring back (against forged requests)."""
        return self._sign("form", f"{session.who}\0{session.until}\0{session.nonce}")

    def is_form_token(self, session: Session, given: str) -> bool:
        """Tell whether *given* came from a form of this session."""
        return hmac.compare_digest(given.encode(), self.form_token(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()
