"""Official MicroPython images by version: fetched once, checked against a pinned SHA-256, kept.

    path = fetch("1.29.0", ESP32, city)

What is pinned stands in release.toml beside this file, and in the city's own `micropython.toml`,
which has the same form and goes first:

    version = 1
    [image."ESP32_GENERIC-20260824-v1.29.0.bin"]
    sha256 = "e67a…"

The digest is what is trusted. TLS is there all the same, and nothing else than the pinned file is
ever kept: in $XDG_CACHE_HOME/netzpuls/micropython, whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from fleet import document, file
from fleet.document import Table
from fleet.errors import ConfigurationError
from fleet.text import printable
from provisioning.chip import CHIPS, Chip
from provisioning.errors import AlteredError, DownloadError, UnpinnedError

PINNED_FILE = "micropython.toml"
SOURCE = "https://micropython.org/resources/firmware/"
SOURCE_VARIABLE = "NETZPULS_MICROPYTHON_SOURCE"  # a mirror; what it gives must be the pinned file

MOST_BYTES = 16 << 20
SILENCE_S = 20.0
DEADLINE_S = 900.0

_PIECE_BYTES = 64 * 1024
_NAME = re.compile(r"(ESP32_GENERIC(?:_[A-Z]\d)?)-\d{8}-v(\d+\.\d+\.\d+)\.bin")
_LENGTH = re.compile(r"[0-9]{1,15}")
_REDIRECTS = 3
_INSTEAD = "or fetch the image elsewhere and name it: --micropython FILE"


class Pinned(Table):
    """What one image must be.

    Attributes:
        bytes: its size; None if only its digest is known.
        recorded_by: who says so.
    """

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(gt=0, le=MOST_BYTES)] | None = None
    recorded_by: list[str] = Field(default_factory=list)


class Pins(Table):
    """A table of images by file name."""

    version: Annotated[int, Field(ge=1, le=1)]
    image: dict[str, Pinned] = Field(default_factory=dict)


@dataclass(frozen=True)
class Release:
    """One official image: its file name, what it is for, and what it must be."""

    name: str
    build: str
    version: str
    pinned: Pinned


@dataclass(frozen=True)
class Fetched:
    """An image that is there; `was_kept` says that nothing had to be fetched.

    Attributes:
        content: what was checked; the file may be another one a moment later.
    """

    path: Path
    content: bytes = field(repr=False)
    release: Release
    was_kept: bool


# Told bytes that came and bytes to come, 0 if nobody knows.
Advance = Callable[[int, int], None]


def releases(city: Path) -> list[Release]:
    """Return all images that are pinned, the city's own first.

    Raises: ConfigurationError: a table is wrong.
    """
    found: dict[str, Release] = {}
    for path in (city / PINNED_FILE, Path(__file__).with_name("release.toml")):
        if path.parent == city and not path.exists():
            continue
        for name, pinned in document.load(Pins, path).image.items():
            match = _NAME.fullmatch(name)
            if match is None:
                raise ConfigurationError(
                    f"{path}: {printable(name)} is no name of an official image",
                    hint=f"like those below {SOURCE}: ESP32_GENERIC-20260824-v1.29.0.bin",
                )
            found.setdefault(name, Release(name, match[1], match[2], pinned))
    return list(found.values())


def choose(version: str, chip: Chip, city: Path) -> Release:
    """Return the image of a version for a chip; the newest build if there are several.

    Raises: UnpinnedError: none is pinned.
    """
    known = releases(city)
    found = [each for each in known if (each.build, each.version) == (chip.build, version)]
    if found:
        return max(found, key=lambda each: each.name)
    there = "; ".join(
        f"{each.name}: {', '.join(versions)}"
        for each in CHIPS
        if (versions := sorted({r.version for r in known if r.build == each.build}))
    )
    raise UnpinnedError(
        f"no SHA-256 is pinned for MicroPython {printable(version)} for {chip.name}",
        hint=f"pinned are {there}. For another: fetch it from {chip.official}, and name the file "
        f"with --micropython FILE, or put its SHA-256 into {city / PINNED_FILE}",
    )


def fetch(
    version: str, chip: Chip, city: Path, on_progress: Advance = lambda _done, _total: None
) -> Fetched:
    """Return an image of a version for a chip, from the cache or from where it is published.

    Raises:
        UnpinnedError: it is not known what it must be.
        DownloadError: it cannot be fetched, or not kept.
        AlteredError: what came is not what was pinned; it was not kept.
    """
    release = choose(version, chip, city)
    path = folder() / release.name
    kept = _kept(path, release.pinned)
    if kept is not None:
        return Fetched(path, kept, release, was_kept=True)
    content = _download(release, on_progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.write(path, content)
    except OSError as error:
        raise DownloadError(
            f"cannot keep {path}: {error.strerror or error}",
            hint=f"make room, or the folder writable; {_INSTEAD}",
        ) from None
    return Fetched(path, content, release, was_kept=False)


def folder() -> Path:
    """Return where images are kept, for this user."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "netzpuls" / "micropython"


def _kept(path: Path, pinned: Pinned) -> bytes | None:
    """Return what a file holds if that is what it must be; another one is removed."""
    try:
        # Whatever it has become: a pipe is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = stream.read(MOST_BYTES + 1) if is_file else b""
    except OSError:
        return None
    if _is(content, pinned):
        return content
    with contextlib.suppress(OSError):
        path.unlink()
    return None


def _is(content: bytes, pinned: Pinned) -> bool:
    return hashlib.sha256(content).hexdigest() == pinned.sha256


def _download(release: Release, on_progress: Advance) -> bytes:
    url = _source().rstrip("/") + "/" + release.name
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=_context(time.monotonic() + DEADLINE_S)),
        _SameHost(url),
    )
    most = release.pinned.bytes or MOST_BYTES
    try:
        with opener.open(url, timeout=SILENCE_S) as answer:
            content = _read(answer, most, on_progress)
    except urllib.error.HTTPError as error:
        error.close()
        raise _failed(url, f"it answers {error.code} {printable(str(error.reason))}") from None
    except urllib.error.URLError as error:
        raise _failed(url, _reason(error.reason)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failed(url, _reason(error)) from None
    if not _is(content, release.pinned):
        size = f"{len(content):,} bytes of {most:,}; " if len(content) != most else ""
        raise AlteredError(
            f"what came from {url} is not {release.name}: {size}its SHA-256 is "
            f"{hashlib.sha256(content).hexdigest()}, pinned is {release.pinned.sha256}",
            hint="it was not kept. Run the command again; if it happens twice, somebody changes "
            "what you fetch, or it was published anew",
        )
    return content


def _source() -> str:
    """Return the address below which the images are.

    Raises: ConfigurationError: it is none; one that may hold a password is not repeated.
    """
    source = os.environ.get(SOURCE_VARIABLE) or SOURCE
    hint = f"name the folder of a mirror, or unset it for {SOURCE}"
    if any(each in source for each in "@?#"):
        raise ConfigurationError(
            f"{SOURCE_VARIABLE} holds more than a host and a folder: no user, no password, "
            "no query",
            hint=hint,
        )
    try:
        parts = urlsplit(source)
        is_address = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    # Python drops line feeds and tabs from an address without a word.
    if not is_address or printable(source, len(source)) != source or " " in source:
        raise ConfigurationError(
            f"{SOURCE_VARIABLE} is no https:// address: {printable(source)}", hint=hint
        )
    return source


def _context(until: float) -> ssl.SSLContext:
    """Return what TLS is made with; nothing is read after `until`, by `time.monotonic`.

    One read, and the handshake, take no longer than the socket's timeout.
    """

    class Timed(ssl.SSLSocket):
        def recv_into(self, *arguments: Any, **named: Any) -> int:
            if time.monotonic() > until:
                raise OSError(f"it was not there after {DEADLINE_S:g} s")
            return super().recv_into(*arguments, **named)

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = Timed
    return context


def _read(answer: Any, most: int, on_progress: Advance) -> bytes:
    """Read an answer, not much further than it may be."""
    declared = answer.headers.get("Content-Length", "")
    if declared and not _LENGTH.fullmatch(declared):
        raise OSError(f"it names no size: {printable(declared, 40)}")
    total = int(declared or 0)
    if total > most:
        raise OSError(f"it has {total:,} bytes, and {most:,} are the most")
    content = bytearray()
    on_progress(0, total)
    while piece := answer.read1(_PIECE_BYTES):
        content += piece
        on_progress(len(content), total)
        if len(content) > most:
            raise OSError(f"it goes on after {most:,} bytes")
    if len(content) < total:
        raise OSError(f"it was cut after {len(content):,} of {total:,} bytes")
    return bytes(content)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only within the host, and by TLS."""

    max_redirections = _REDIRECTS

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        to = urlsplit(newurl)
        if (to.scheme, to.netloc) != ("https", self._host):
            fp.close()
            raise urllib.error.URLError(f"it leads elsewhere, to {printable(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _reason(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {printable(error.verify_message)}"
    if isinstance(error, TimeoutError):
        return f"no answer within {SILENCE_S:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror)
    return printable(str(error)) or type(error).__name__


def _failed(url: str, reason: str) -> DownloadError:
    return DownloadError(
        f"cannot fetch {url}: {reason}", hint=f"is there a way to the internet? {_INSTEAD}"
    )
