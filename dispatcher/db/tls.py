"""What goes wrong with TLS to PostgreSQL, in one line that says what to do."""

import ssl
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from dispatcher.db.address import Address

# Of X509_V_ERR_*: the certificate names another host, or another address.
_OTHER_NAME: Final = (62, 64)


def explain_tls(error: BaseException, dsn: str, at: Address) -> str | None:
    """Return the line if *error* is trouble with TLS, else None."""
    match error:
        case ssl.SSLCertVerificationError(verify_code=code) if code in _OTHER_NAME:
            return (
                f"The certificate of PostgreSQL at {at} is for another host name: write the host in"
                " DISPATCHER_DATABASE_URL as it stands in the certificate."
            )
        case ssl.SSLCertVerificationError(verify_message=why):
            return (
                f"The certificate of PostgreSQL at {at} is not trusted ({why}): sslrootcert in"
                " DISPATCHER_DATABASE_URL must name a file with the CA that signed it."
            )
        case asyncpg.ClientConfigurationError() if "root certificate file" in str(error):
            return (
                "sslmode in DISPATCHER_DATABASE_URL asks for a certificate that is trusted, and"
                " nothing says whom to trust: add &sslrootcert=FILE, with the CA of PostgreSQL's."
            )
        case ssl.SSLError(reason="NO_CERTIFICATE_OR_CRL_FOUND") | FileNotFoundError() if (
            file := _authority(dsn)
        ) and (isinstance(error, ssl.SSLError) or not Path(file).exists()):
            return (
                f"sslrootcert in DISPATCHER_DATABASE_URL names {file}, which is no file with a"
                " certificate (PEM): name that of the CA of PostgreSQL's certificate."
            )
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return (
                f"PostgreSQL at {at} does not speak TLS, and sslmode asks for it: set ssl = on"
                " there, or correct DISPATCHER_DATABASE_URL."
            )
        case _:
            return None


def _authority(dsn: str) -> str | None:
    try:
        return parse_qs(urlsplit(dsn).query).get("sslrootcert", [None])[-1]
    except ValueError:
        return None
