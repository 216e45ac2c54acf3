"""The lab's own trust on the internet: one authority that boards know, one that they do not.

Source: RFC 5280; the CA/Browser Forum's roots differ in nothing that a board looks at.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet import file

_BACKDATED = timedelta(days=2)
_ROOT_VALID = timedelta(days=3650)
VALID = timedelta(days=90)  # as the great public authorities give


class Root:
    """An authority of the lab's internet; `folder` takes what servers load."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Lab {name}")])
        certificate = self._signed(
            self._name,
            self._key.public_key(),
            _ROOT_VALID,
            (
                (x509.BasicConstraints(ca=True, path_length=0), True),
                (x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False),
            ),
        )
        self.path = self._folder / "root.pem"
        self.path.write_bytes(certificate.public_bytes(Encoding.PEM))

    def server(self, name: str, valid: timedelta = VALID) -> ssl.SSLContext:
        """Return a TLS server's side for a host name, its certificate valid for so long."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            key.public_key(),
            valid,
            (
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                (
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                    False,
                ),
            ),
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self._folder / f"{name}-{valid.days}.pem"
        file.write(path, secret + certificate.public_bytes(Encoding.PEM), file.PRIVATE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _signed(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        valid: timedelta,
        extensions: tuple[tuple[x509.ExtensionType, bool], ...],
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + valid)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())
