"""Official images by version: only what is pinned is ever kept, from a real TLS server."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import fleet.cli
from fleet.errors import ConfigurationError, NetzpulsError
from hil.lab.certificate import Root
from provisioning import cli_image, release
from provisioning.chip import CHIPS, ESP32
from provisioning.errors import AlteredError, DownloadError, UnpinnedError
from provisioning.flash import FlashRequest, prepare

HERE = "localhost"
NAME = "ESP32_GENERIC-20260101-v9.9.9.bin"
CONTENT = bytes(range(256)) * 1000
LOGIN = "user:geheim"


class Server:
    """A web server with TLS on loopback.

    Attributes:
        content: what it gives; `status`, `headers` and `length` go with it;
            `declared` is told as its length as it stands.
        asked: the paths that were asked for.
        cut_after: bytes after which it hangs up.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.content = CONTENT
        self.status = 200
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self.declared: str | None = None
        self.cut_after: int | None = None
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                redirected = outer.status in (301, 302) and "again" not in self.path
                self.send_response(outer.status if redirected or outer.status >= 400 else 200)
                for name, value in outer.headers.items() if redirected else ():
                    self.send_header(name, value)
                length = len(outer.content) if outer.length is None else outer.length
                if outer.declared is not None:
                    self.send_header("Content-Length", outer.declared)
                elif length >= 0:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(outer.content[: outer.cut_after])
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        self.source = f"https://{HERE}:{self.port}/firmware"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path, "root")


@pytest.fixture
def server(
    root: Root, city: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Server]:
    """Serve one image that the city pins, by a CA that this process trusts."""
    opened = Server(root.server(HERE))
    monkeypatch.setenv("SSL_CERT_FILE", str(root.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(release.SOURCE_VARIABLE, opened.source)
    monkeypatch.setenv("NO_PROXY", "*")
    _pin(city, CONTENT)
    yield opened
    opened.close()


def _pin(city: Path, content: bytes, *, size: int | None = None) -> None:
    digest = hashlib.sha256(content).hexdigest()
    (city / release.PINNED_FILE).write_text(
        f'version = 1\n[image."{NAME}"]\nsha256 = "{digest}"\nbytes = {size or len(content)}\n'
    )


def _refused(city: Path, kind: type[NetzpulsError]) -> NetzpulsError:
    with pytest.raises(kind) as caught:
        release.fetch("9.9.9", ESP32, city)
    folder = release.folder()
    assert not folder.exists() or list(folder.iterdir()) == []
    assert caught.value.hint
    return caught.value


def test_fetched_once_and_kept(server: Server, city: Path) -> None:
    steps: list[tuple[int, int]] = []
    first = release.fetch("9.9.9", ESP32, city, lambda *step: steps.append(step))
    assert (first.was_kept, first.path.read_bytes()) == (False, CONTENT)
    assert first.path == release.folder() / NAME
    assert server.asked == [f"/firmware/{NAME}"]
    assert steps[0] == (0, len(CONTENT))
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert len(steps) > 2
    server.close()
    server.close = lambda: None  # type: ignore[method-assign]
    second = release.fetch("9.9.9", ESP32, city)
    assert (second.was_kept, second.path) == (True, first.path)


@pytest.mark.parametrize("kept", [b"", CONTENT[:-1], CONTENT[:-1] + b"\0", CONTENT + b"\0"])
def test_a_kept_image_that_was_altered_is_fetched_anew(
    server: Server, city: Path, kept: bytes
) -> None:
    release.folder().mkdir(parents=True)
    path = release.folder() / NAME
    path.write_bytes(kept)
    assert not release.fetch("9.9.9", ESP32, city).was_kept
    assert path.read_bytes() == CONTENT
    path.write_bytes(kept)
    server.status = 404
    _refused(city, DownloadError)  # and the altered one is gone


def test_what_is_not_the_pinned_one_is_not_kept(server: Server, city: Path) -> None:
    server.content = CONTENT[:-1] + b"\0"
    error = _refused(city, AlteredError)
    assert error.exit_code == 2
    assert hashlib.sha256(server.content).hexdigest() in error.message
    assert hashlib.sha256(CONTENT).hexdigest() in error.message
    server.content = CONTENT[:-1]
    assert "255,999 bytes of 256,000" in _refused(city, AlteredError).message


def test_a_cut_download_is_not_kept(server: Server, city: Path) -> None:
    server.cut_after = 100_000
    error = _refused(city, DownloadError)
    assert "cut after 100,000 of 256,000 bytes" in error.message
    assert error.exit_code == 3


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("9" * 5000, "names no size: 99999"),
        ("9" * 15, "999,999,999,999,999 bytes"),
        ("-5", "names no size"),
        ("1e3", "names no size"),
    ],
)
def test_a_size_that_is_none(server: Server, city: Path, declared: str, told: str) -> None:
    server.declared = declared
    assert told in _refused(city, DownloadError).message


@pytest.mark.parametrize(
    "source",
    [
        "https://[bad/",
        "https://",
        "https:///folder",
        "https://mirror.example:99999/",
        "https://mirror.example:port/",
        "https://mirror.example\n/",
        "https://mirror.example/a b/",
        "https://mirror.example/\x1b[2J",
        "ftp://localhost/",
    ],
)
def test_a_mirror_that_is_no_address(
    city: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _pin(city, CONTENT)
    monkeypatch.setenv(release.SOURCE_VARIABLE, source)
    error = _refused(city, ConfigurationError)
    assert release.SOURCE_VARIABLE in error.message
    assert error.message.isprintable()
    assert error.exit_code == 2


@pytest.mark.parametrize(
    "source",
    [
        f"https://{LOGIN}@mirror.example/",
        f"https://[{LOGIN}@bad/",
        f"http://{LOGIN}@mirror.example",
        "https://mirror.example/?token=geheim",
    ],
)
def test_a_password_in_a_mirror_s_address_is_never_told(
    city: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _pin(city, CONTENT)
    monkeypatch.setenv(release.SOURCE_VARIABLE, source)
    error = _refused(city, ConfigurationError)
    assert "geheim" not in json.dumps(error.document())


@pytest.mark.parametrize("become", ["pipe", "device", "folder", "link"])
def test_a_kept_image_that_has_become_something_else(
    server: Server, city: Path, become: str, tmp_path: Path
) -> None:
    path = release.folder() / NAME
    path.parent.mkdir(parents=True)
    if become == "pipe":
        os.mkfifo(path)
    elif become == "folder":
        path.mkdir()
    else:
        target = tmp_path / "target"
        target.write_bytes(b"not the image")
        path.symlink_to("/dev/zero" if become == "device" else target)
    done: list[Any] = []

    def fetch() -> None:
        try:
            done.append(release.fetch("9.9.9", ESP32, city))
        except NetzpulsError as error:
            done.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(20)
    assert done
    if become == "folder":
        assert isinstance(done[0], DownloadError)
        return
    assert path.read_bytes() == CONTENT
    assert not path.is_symlink()
    if become == "link":
        assert target.read_bytes() == b"not the image"


def test_headers_that_never_end(
    root: Root, server: Server, city: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte in time, and all of them never."""
    monkeypatch.setattr(release, "DEADLINE_S", 0.5)
    stop = threading.Event()

    def drip(listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        with (
            contextlib.suppress(OSError),
            root.server(HERE).wrap_socket(accepted, server_side=True) as opened,
        ):
            opened.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(200):
                if stop.wait(0.05):
                    break
                opened.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        address = f"https://{HERE}:{listening.getsockname()[1]}/"
        monkeypatch.setenv(release.SOURCE_VARIABLE, address)
        try:
            assert "it was not there after 0.5 s" in _refused(city, DownloadError).message
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("length", [None, -1])
def test_one_that_does_not_end_is_left(server: Server, city: Path, length: int | None) -> None:
    server.length = length
    server.content = CONTENT + bytes(1 << 20)
    error = _refused(city, DownloadError)
    assert "256,000" in error.message
    assert error.exit_code == 3


def test_redirections(server: Server, city: Path) -> None:
    server.status = 302
    server.headers = {"Location": f"{server.source}/again/{NAME}"}
    assert not release.fetch("9.9.9", ESP32, city).was_kept
    (release.folder() / NAME).unlink()
    for elsewhere in (
        f"https://127.0.0.1:{server.port}/again/{NAME}",
        f"http://{HERE}:{server.port}/again/{NAME}",
        f"https://{HERE}:1/again/{NAME}",
        "file:///etc/passwd",
    ):
        server.headers = {"Location": elsewhere}
        error = _refused(city, DownloadError)
        assert "leads elsewhere" in error.message or "not allowed" in error.message
    server.headers = {"Location": f"{server.source}/{NAME}"}
    asked = len(server.asked)
    _refused(city, DownloadError)
    assert len(server.asked) - asked < 10


def test_without_a_network_a_file_is_the_way(
    server: Server, city: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv(release.SOURCE_VARIABLE, f"https://{HERE}:{port}/")
    error = _refused(city, DownloadError)
    assert "Connection refused" in error.message
    assert "--micropython FILE" in error.hint
    assert error.exit_code == 3
    monkeypatch.setenv(release.SOURCE_VARIABLE, "https://micropython.example/")
    assert "micropython.example" in _refused(city, DownloadError).message
    server.status = 404
    monkeypatch.setenv(release.SOURCE_VARIABLE, server.source)
    assert "it answers 404" in _refused(city, DownloadError).message
    monkeypatch.setenv(release.SOURCE_VARIABLE, server.source.replace("https", "http"))
    assert "no https" in _refused(city, ConfigurationError).message


def test_one_that_keeps_silent_is_left(
    server: Server, city: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "SILENCE_S", 0.3)
    server.length = len(CONTENT)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"https://{HERE}:{silent.getsockname()[1]}/"
        monkeypatch.setenv(release.SOURCE_VARIABLE, address)
        assert "no answer within" in _refused(city, DownloadError).message


@pytest.mark.parametrize("how", ["unknown CA", "another name", "expired"])
def test_a_server_that_cannot_prove_itself_is_refused(
    root: Root, server: Server, city: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "unknown CA":
        context = Root(city, "other").server(HERE)
    elif how == "another name":
        context = root.server("micropython.org")
    else:
        context = root.server(HERE, timedelta(days=-1))
    impostor = Server(context)
    monkeypatch.setenv(release.SOURCE_VARIABLE, impostor.source)
    try:
        assert "certificate is not to be trusted" in _refused(city, DownloadError).message
    finally:
        impostor.close()
    assert impostor.asked == server.asked == []


def test_technicians_at_the_same_time(server: Server, city: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: release.fetch("9.9.9", ESP32, city).path, range(4)))
    assert {path.read_bytes() for path in found} == {CONTENT}
    assert [path.name for path in release.folder().iterdir()] == [NAME]
    assert len(server.asked) <= 4


def test_a_folder_that_cannot_be_written(
    server: Server, city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(DownloadError, match="cannot keep"):
        release.fetch("9.9.9", ESP32, city)
    assert server.asked


def test_what_is_pinned_has_form(city: Path) -> None:
    known = release.releases(city)
    assert {each.build for each in known} == {each.build for each in CHIPS}
    for each in known:
        assert re.fullmatch(r"[0-9a-f]{64}", each.pinned.sha256)
        assert each.pinned.bytes
        assert 1_500_000 < each.pinned.bytes < 1_900_000
        repositories = {source.partition(":")[0] for source in each.pinned.recorded_by}
        assert len(repositories) >= 2
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in repositories)
    assert len({each.pinned.sha256 for each in known}) == len(known)
    for chip in CHIPS:
        assert release.choose("1.29.0", chip, city).build == chip.build


def test_what_is_not_pinned_is_told_with_what_is(city: Path) -> None:
    with pytest.raises(UnpinnedError, match=r"MicroPython 1\.2\.3 for ESP32-S3") as caught:
        release.choose("1.2.3", CHIPS[1], city)
    assert "ESP32: 1.27.0, 1.28.0, 1.29.0; ESP32-S3: 1.29.0" in caught.value.hint
    assert "--micropython FILE" in caught.value.hint
    assert str(city / "micropython.toml") in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "version = 2",
        'version = 1\n[image."../evil.bin"]\nsha256 = "' + "0" * 64 + '"',
        f'version = 1\n[image."{NAME}"]\nsha256 = "abc"',
        f'version = 1\n[image."{NAME}"]\nsha256 = "{"0" * 64}"\nbytes = 99999999999',
    ],
)
def test_a_table_that_is_wrong(city: Path, text: str) -> None:
    (city / release.PINNED_FILE).write_text(text)
    with pytest.raises(ConfigurationError, match=r"micropython\.toml"):
        release.releases(city)


def test_at_the_terminal(
    server: Server, city: Path, stand_in: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.content = stand_in.read_bytes()
    _pin(city, server.content)

    def run(*more: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as exited:
            fleet.cli.main(
                ["board", "flash", "--city", str(city), "--port", os.devnull, "--dry-run",
                 "--site", "school-north", "--room", "R101", "--role", "ap-monitor", *more]
            )  # fmt: skip
        said = capfd.readouterr()
        return exited.value.code, said.out, said.err

    code, out, err = run("--micropython-version", "9.9.9", "--json")
    assert code == 0
    assert json.loads(out)["plan"]["image"]["file"] == NAME
    assert f"fetched {NAME}, kept in {release.folder()}" in err
    assert run("--micropython-version", "9.9.9")[2] == ""
    assert len(server.asked) == 1
    assert run("--micropython-version", "9.9.9", "--micropython", "x.bin")[0] == 2
    assert run("--chip", "ESP32-C3", "--micropython", "x.bin")[0] == 2
    code, out, _ = run("--micropython-version", "9.9.9", "--chip", "ESP32-C3", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "image-unpinned")


def test_what_is_flashed_is_what_was_checked(
    server: Server, city: Path, stand_in: Path, older_stand_in: Path
) -> None:
    server.content = stand_in.read_bytes()
    _pin(city, server.content)
    for _ in range(2):  # fetched, then kept
        chosen = cli_image.chosen(city, None, "9.9.9", None)
        (release.folder() / NAME).write_bytes(older_stand_in.read_bytes())
        request = FlashRequest(city, os.devnull, "school-north", "R101", "ap-monitor", chosen)
        assert prepare(request).application.content == server.content
        (release.folder() / NAME).write_bytes(server.content)
