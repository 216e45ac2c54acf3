"""The city's certificate authority: who may talk to a gateway, and who is the gateway.

    ca.pem           the CA's certificate, public
    secrets/ca.key   its private key, mode 0600; never leaves city hall

It is made on first use. Keys are ECDSA P-256: small enough for a board, known to every TLS.
A common name is `[a-z0-9-]+`, because the broker puts it into its access rules, where a
"/" or "+" would open other boards' topics.

Source: RFC 5280 (certificates and their extensions).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet import file
from fleet.errors import READABLE, NetzpulsError
from fleet.inventory import SECRETS_FOLDER

CERTIFICATE_FILE = "ca.pem"
KEY_FILE = "ca.key"
CA_NAME = "netzpuls-ca"

CA_VALID = timedelta(days=20 * 365)
BOARD_VALID = timedelta(days=10 * 365)
GATEWAY_VALID = timedelta(days=2 * 365)

# A board that lost its clock believes it is 1970 or 2000, and must still accept the gateway
# that will tell it the time.
_BEFORE_ALL_CLOCKS = datetime(1970, 1, 1, tzinfo=UTC)
# Gateways' clocks differ a little from city hall's.
_CLOCK_LEEWAY = timedelta(days=1)
# With a list of revoked certificates that is from the future in its eyes a broker refuses all
# boards, and a gateway without a battery may come up weeks behind.
_LIST_DATED_BACK = timedelta(days=365)

_COMMON_NAME = re.compile(r"[a-z0-9-]{1,64}")  # 64: RFC 5280, ub-common-name
_BOARD_ID = re.compile(r"np-[0-9a-f]{12}")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class AuthorityError(NetzpulsError):
    """The city's CA cannot be used, or was asked for a certificate that it must not give."""

    code = "authority"
    exit_code = 2


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        """The certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        """The private key as PEM (PKCS #8, not encrypted)."""
        return self._key_bytes(serialization.Encoding.PEM)

    @property
    def key_der(self) -> bytes:
        """The private key as DER (PKCS #8, not encrypted)."""
        return self._key_bytes(serialization.Encoding.DER)

    def _key_bytes(self, encoding: serialization.Encoding) -> bytes:
        return self.key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Authority:
    """Issues certificates in the city's name."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.certificate = identity.certificate

    @property
    def certificate_pem(self) -> bytes:
        """The CA's certificate as PEM."""
        return self._identity.certificate_pem

    @property
    def certificate_der(self) -> bytes:
        """The CA's certificate as DER."""
        return self._identity.certificate_der

    def renewed(self) -> Authority:
        """Return the same CA, by the same key, with a certificate that ends later."""
        key, subject = self._identity.key, self.certificate.subject
        return Authority(Identity(_ca_certificate(subject, key), key))

    def issue_board(
        self,
        board_id: str,
        *,
        valid_for: timedelta = BOARD_VALID,
        valid_from: datetime | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Identity:
        """Make a client certificate for a board, and a key unless it keeps the one that it has.

        Raises: AuthorityError: not a board's id; the CA has expired.
        """
        # Any other name could be the collector's, which may read and acknowledge for all.
        if not _BOARD_ID.fullmatch(board_id):
            raise AuthorityError(
                f"{board_id!r} is no board's id", hint='"np-" and the 12 hex digits of its MAC'
            )
        return self._issue(
            board_id, ExtendedKeyUsageOID.CLIENT_AUTH, valid_from, valid_for, key=key
        )

    def issue_collector(
        self,
        gateway_id: str,
        *,
        valid_for: timedelta = GATEWAY_VALID,
        valid_from: datetime | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Identity:
        """Make a client certificate for a gateway's collector, with a new key or for `key`.

        Raises: AuthorityError: the name is not allowed; the CA has expired.
        """
        name = collector_name(gateway_id)
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, valid_from, valid_for, key=key)

    def issue_gateway(
        self,
        gateway_id: str,
        hosts: Iterable[str] = (),
        *,
        valid_for: timedelta = GATEWAY_VALID,
        valid_from: datetime | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Identity:
        """Make a server certificate for a gateway's broker, with a new key or for `key`.

        Args:
            gateway_id: the common name, and the name that boards ask for.
            hosts: further host names and IP addresses that it answers to.
            valid_for: how long it is valid, at most as long as the CA.
            valid_from: the default is before any clock.
            key: the key of the certificate that this one follows.

        Raises: AuthorityError: a name is not allowed; the CA has expired.
        """
        names = [_general_name(host) for host in dict.fromkeys((gateway_id, *hosts))]
        return self._issue(
            gateway_id,
            ExtendedKeyUsageOID.SERVER_AUTH,
            valid_from,
            valid_for,
            names=x509.SubjectAlternativeName(names),
            key=key,
        )

    def sign_revocations(
        self, serials: Mapping[int, datetime], *, after: datetime | None = None
    ) -> x509.CertificateRevocationList:
        """Sign the list of certificates that no longer hold, by serial number and since when.

        Args:
            serials: all of them.
            after: the date of the list that this one follows.
        """
        dated = _now() - _LIST_DATED_BACK
        if after is not None:
            # OpenSSL takes the list with the latest date, the first one of equals.
            dated = max(dated, after + timedelta(seconds=1))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(dated)
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(_authority_key(self.certificate), critical=False)
        )
        for serial, since in sorted(serials.items()):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._identity.key, hashes.SHA256())

    def _issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier,
        valid_from: datetime | None,
        valid_for: timedelta,
        *,
        names: x509.SubjectAlternativeName | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Identity:
        if not _COMMON_NAME.fullmatch(name):
            raise AuthorityError(
                f"no certificate for {name!r}: not a name that the broker's rules can hold",
                hint="use at most 64 of: a-z 0-9 -",
            )
        now = _now()
        ca = self.certificate
        if ca.not_valid_after_utc <= now:
            raise AuthorityError(
                f"the city's CA expired on {ca.not_valid_after_utc:%Y-%m-%d}",
                hint="a new CA is needed; every board and gateway has to be enrolled again",
            )
        key = key or ec.generate_private_key(ec.SECP256R1())
        begin = valid_from or (_BEFORE_ALL_CLOCKS if names else now - _CLOCK_LEEWAY)
        end = (valid_from or now) + valid_for
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(min(end, ca.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(_authority_key(ca), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return Identity(builder.sign(self._identity.key, hashes.SHA256()), key)


def collector_name(gateway_id: str) -> str:
    """Return the common name of a gateway's collector."""
    return f"collector-{gateway_id}"


def ensure(folder: Path, city_id: str) -> Authority:
    """Return the CA of the city in `folder`; make it if there is none yet.

    Two processes that come first at the same time get the same CA.

    Raises: AuthorityError: its files do not fit together or cannot be read or written.
    """
    try:
        secrets = file.secret_folder(folder / SECRETS_FOLDER)
        with file.locked(secrets):
            key_path, certificate_path = secrets / KEY_FILE, folder / CERTIFICATE_FILE
            if not key_path.exists() and not certificate_path.exists():
                key = ec.generate_private_key(ec.SECP256R1())
                ca = Identity(_ca_certificate(_ca_name(city_id), key), key)
                # The key first: from a key without certificate the certificate is made anew,
                # from a certificate without key nothing.
                file.write(key_path, ca.key_pem, file.PRIVATE)
                file.write(certificate_path, ca.certificate_pem)
            elif key_path.exists() and not certificate_path.exists():
                key = _read_key(key_path)
                ca = Identity(_ca_certificate(_ca_name(city_id), key), key)
                file.write(certificate_path, ca.certificate_pem)
    except OSError as error:
        raise AuthorityError(
            f"cannot make the city's CA in {folder}: {error.strerror or error}",
            hint="the folder must be yours and writable",
        ) from None
    return load(folder)


def renew(folder: Path) -> Authority:
    """Make the CA of the city in `folder` valid for its whole time from now on, by the same key.

    What either certificate vouches for the other one vouches for, too: both hold side by side
    until the old one's end.

    Raises: AuthorityError: there is none, or its files cannot be read or written.
    """
    load(folder)
    try:
        with file.locked(folder / SECRETS_FOLDER):
            present = load(folder)
            ca = present.renewed()
            file.write(folder / CERTIFICATE_FILE, ca.certificate_pem)
    except OSError as error:
        raise AuthorityError(
            f"cannot renew the city's CA in {folder}: {error.strerror or error}",
            hint="the folder must be yours and writable",
        ) from None
    return ca


def exists(folder: Path) -> bool:
    """Tell whether the city in `folder` has a CA, whole or not."""
    return (folder / SECRETS_FOLDER / KEY_FILE).exists() or (folder / CERTIFICATE_FILE).exists()


def load(folder: Path) -> Authority:
    """Return the CA of the city in `folder`.

    Raises: AuthorityError: there is none, or its files do not fit together.
    """
    key_path, certificate_path = folder / SECRETS_FOLDER / KEY_FILE, folder / CERTIFICATE_FILE
    if not exists(folder):
        raise AuthorityError(
            f"the city in {folder} has no CA yet",
            hint="the first `netzpuls gateway install` or `netzpuls board flash` makes it",
        )
    key = _read_key(key_path)
    certificate = read_certificate(certificate_path)
    if certificate.public_key() != key.public_key():
        raise AuthorityError(
            f"{certificate_path} and {key_path} do not belong together",
            hint="bring both back from the same backup",
        )
    return Authority(Identity(certificate, key))


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate in PEM.

    Raises: AuthorityError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AuthorityError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    return parse_certificate(content, str(path))


def parse_certificate(content: bytes, name: str) -> x509.Certificate:
    """Return a certificate in PEM; `name` says where it is from.

    Raises: AuthorityError: it is none.
    """
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError:
        raise AuthorityError(
            f"{name} is no certificate in PEM", hint="bring it back from a backup"
        ) from None


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        if path.stat().st_mode & 0o077:
            raise AuthorityError(
                f"others can read the CA's private key {path}",
                hint=f"if nobody did: chmod 600 {path}; if somebody may have: make a new CA",
            )
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise AuthorityError(
            f"cannot read the CA's private key {path}: {error.strerror}",
            hint="it lies at city hall only; elsewhere, or without it, no board can be enrolled",
        ) from None
    except (ValueError, TypeError):
        raise AuthorityError(
            f"{path} is no private key in PEM without password", hint="bring it back from a backup"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{path} is no ECDSA key", hint="bring it back from a backup")
    return key


def _ca_name(city_id: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, city_id),
            x509.NameAttribute(NameOID.COMMON_NAME, CA_NAME),
        ]
    )


def _ca_certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEFORE_ALL_CLOCKS)
        .not_valid_after(_now() + CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _authority_key(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
        ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(host):
        raise AuthorityError(
            f"{host!r} is neither a host name nor an IP address",
            hint="mend host or broker_host of the gateway in inventory.toml",
        )
    return x509.DNSName(host)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
