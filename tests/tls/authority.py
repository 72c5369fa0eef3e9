"""Certificates for an hour, by the `openssl` of the machine."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")


@dataclass(frozen=True)
class Authority:
    """One that signs certificates."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        """Its own, for `sslrootcert`."""
        return self.folder / f"{self.name}.pem"

    def make(self) -> "Authority":
        """Make its key, and sign that."""
        self._request(self.name, f"/CN={self.name}", "-x509", "-out", str(self.certificate))
        return self

    def key_for(self, host: str) -> tuple[str, str]:
        """Return a new key for *host*, and its certificate."""
        request, signed = self.folder / f"{host}.csr", self.folder / f"{host}.crt"
        alias = ("-addext", f"subjectAltName=DNS:{host}")
        self._request(host, f"/CN={host}", *alias, "-out", str(request))
        openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey",
            str(self.folder / f"{self.name}.key"), "-CAcreateserial", "-days", "1",
            "-copy_extensions", "copy", "-out", str(signed),
        )  # fmt: skip
        return (self.folder / f"{host}.key").read_text(), signed.read_text()

    def _request(self, name: str, subject: str, *more: str) -> None:
        key = str(self.folder / f"{name}.key")
        openssl("req", *CURVE, "-keyout", key, "-subj", subject, *more)


def openssl(*arguments: str) -> None:
    """Run `openssl`."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
