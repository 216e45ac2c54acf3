"""The trust anchors: PEM at the desk, DER on the board, and real MicroPython that takes them."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet import inventory
from fleet.errors import ConfigurationError
from hil import tool
from provisioning import root
from tests.provisioning.conftest import INVENTORY

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)

# Loads each certificate of the file with a call of its own, as a board does.
CLIENT = """
import socket, sys, tls
path, port, step = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
context.verify_mode = tls.CERT_REQUIRED
with open(path, "rb") as file:
    while step == "each":
        head = file.read(4)
        if not head:
            break
        context.load_verify_locations(head + file.read(head[2] << 8 | head[3]))
    if step == "all":
        context.load_verify_locations(file.read())
line = socket.socket()
line.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
try:
    context.wrap_socket(line, server_hostname="one.example.org")
except ValueError as error:
    print("refused", str(error).strip())
else:
    print("verified")
"""


class Issuer:
    """A CA for tests."""

    def __init__(self, name: str, *, days: int = 365, ca: bool | None = True) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key, days)
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 400 * DAY)
            .not_valid_after(NOW + days * DAY)
        )

    def server(self, host: str, folder: Path) -> Path:
        """Issue a server's certificate; return the file with it and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = (
            self._builder(name, key, 90)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = folder / f"{host}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path


def _anchors(city: Path, content: bytes | None) -> bytes:
    text = INVENTORY.replace("period_s = 60", 'period_s = 60\nroots = "roots.pem"')
    (city / "inventory.toml").write_text(text)
    if content is not None:
        (city / "roots.pem").write_bytes(content)
    return root.anchors(inventory.load(city))


def test_no_roots_are_no_file(city: Path) -> None:
    assert root.anchors(inventory.load(city)) == b""


def test_text_around_and_keys_between_stay_at_the_desk(city: Path) -> None:
    one, two = Issuer("one"), Issuer("two")
    key = one.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    got = _anchors(city, b"# our roots\n" + one.pem + key + two.pem)
    der = serialization.Encoding.DER
    assert got == one.certificate.public_bytes(der) + two.certificate.public_bytes(der)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"cannot read .*roots\.pem, which measurement\.roots"),
        (b"", "holds no certificates in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificates"),
        (Issuer("old", days=-1).pem, r"CN=old expired on \d{4}-\d\d-\d\d"),
        (Issuer("server", ca=False).pem, "CN=server is no issuer's certificate"),
        (Issuer("bare", ca=None).pem, "CN=bare is no issuer's certificate"),
        (Issuer("many").pem * 9, "holds 9 certificates; a board has room for 8"),
        (Issuer("\x1b[31mred", days=-1).pem, r"red expired"),
    ],
)
def test_what_cannot_be_a_root_is_refused(city: Path, content: bytes | None, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        _anchors(city, content)
    assert caught.value.hint
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(("step", "said"), [("each", "verified"), ("all", "refused")])
def test_micropython_adds_up_what_it_gets_one_by_one(
    city: Path, tmp_path: Path, step: str, said: str
) -> None:
    other, issuer = Issuer("other"), Issuer("issuer")
    path = tmp_path / "roots.der"
    path.write_bytes(_anchors(city, other.pem + issuer.pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issuer.server("one.example.org", tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                line.settimeout(20)
                try:
                    context.wrap_socket(line, server_side=True).close()
                except OSError:
                    line.close()  # the client went away: that is its verdict

        thread = threading.Thread(target=serve)
        thread.start()
        client = tmp_path / "client.py"
        client.write_text(CLIENT)
        done = subprocess.run(
            [tool.find("micropython"), client, path, str(listener.getsockname()[1]), step],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        thread.join()
    assert done.stdout.startswith(said), done.stdout + done.stderr
