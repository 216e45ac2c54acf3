"""Finding tools, and fetching them with a real apt from archives on this disk."""

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet import tool as program
from fleet.errors import ToolMissingError
from fleet.tool import MOSQUITTO
from hil import archive as archives
from hil import tool
from hil.archive import Archive, FetchError

needs_apt = pytest.mark.skipif(
    not shutil.which("apt-get"), reason="needs apt: run the tests on Debian or Ubuntu"
)
needs_gpg = pytest.mark.skipif(
    not (shutil.which("gpg") and shutil.which("dpkg-deb") and shutil.which("apt-get")),
    reason="needs apt, gpg and dpkg-deb: sudo apt install gpg",
)
BOOKWORM = {"ID": "debian", "VERSION_CODENAME": "bookworm", "PRETTY_NAME": "Debian 12"}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    program.find.cache_clear()
    yield
    program.find.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name an empty folder for tools, and a PATH and system folders without any."""
    folder = tmp_path / "tools"
    monkeypatch.setenv("NETZPULS_TOOLS", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(program, "_SYSTEM_FOLDERS", ())
    return folder


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str, str], Path]:
    """Put a shell script on PATH, or wherever `place` says."""

    def make(name: str, script: str, place: Path = tmp_path / "path") -> Path:
        place.mkdir(parents=True, exist_ok=True)
        path = place / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


# Finding


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("2.0.11-1.2+deb12u2", (2, 0, 11)),
        ("1.25.0+ds-1", (1, 25, 0)),
        ("9.2p1", (9, 2)),
        ("10", (10,)),
        ("next", ()),
    ],
)
def test_versions_are_numbers(text: str, version: tuple[int, ...]) -> None:
    assert program.parse(text) == version


def test_versions_compare_as_numbers() -> None:
    assert program.parse("1.9") < program.parse("1.24") < program.parse("1.24.1")
    assert program.parse("10.0p2") > program.parse("9.8")


def test_path_comes_first_when_new_enough(folder: Path, command: Callable[..., Path]) -> None:
    mine = command("mosquitto", "echo mosquitto version 2.0.21")
    command("mosquitto", "", folder / "bin")
    assert tool.find("mosquitto") == mine


def test_an_old_one_on_path_yields_to_the_fetched(
    folder: Path, command: Callable[..., Path]
) -> None:
    command("mosquitto", "echo mosquitto version 1.6.9")
    fetched = command("mosquitto", "", folder / "bin")
    assert tool.find("mosquitto") == fetched


def test_the_error_tells_what_is_too_old(folder: Path, command: Callable[..., Path]) -> None:
    old = command("mosquitto", "echo mosquitto version 1.6.9")
    with pytest.raises(ToolMissingError) as caught:
        tool.find("mosquitto")
    assert caught.value.message == (
        f"the MQTT broker mosquitto 2 or newer is needed: {old} is 1.6.9"
    )
    assert caught.value.hint == MOSQUITTO.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["micropython", "micropython32", "mosquitto", "sshd", "dnsmasq"])
def test_the_error_tells_what_is_missing(folder: Path, name: str) -> None:
    with pytest.raises(ToolMissingError, match=f"{name} is not on this machine") as caught:
        tool.find(name)
    assert "make setup" in caught.value.hint


def test_a_program_that_does_not_run_has_no_version(command: Callable[..., Path]) -> None:
    broken = command("mosquitto", "exit 127")
    assert program.version_of(MOSQUITTO, broken) == ()
    broken.write_bytes(b"\x7fELF, cut short")
    assert program.version_of(MOSQUITTO, broken) == ()


def test_the_tools_of_this_checkout_run() -> None:
    for name, each in tool.TOOLS.items():
        if each is tool.MICROPYTHON32 and not tool._x86_64():
            continue
        if each in tool.ON_DEMAND:  # fetched, and run, by the tests that need them
            continue
        assert program.version_of(each, tool.find(name)) >= each.minimum


def test_32_bit_micropython_has_small_pointers() -> None:
    if not tool._x86_64():
        pytest.skip("32-bit MicroPython is only fetched on x86-64: run this on such a machine")
    answer = subprocess.run(
        [tool.find("micropython32"), "-c", "import sys; print(sys.maxsize)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str(2**31 - 1)


# Where the machine's packages come from


def sources(*entries: tuple[str, str]) -> str:
    return "".join(f"'{mirror}/dists/{suite}/InRelease' name 0 \n" for mirror, suite in entries)


@pytest.fixture
def _keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        archives, "_keyring", lambda distribution: Path(f"/keys/{distribution}.gpg")
    )


@pytest.mark.usefixtures("_keyring")
def test_debian_12_takes_its_successor_from_its_own_mirrors() -> None:
    known = sources(
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
        ("http://mirror.example/debian", "bookworm-backports"),
        ("http://mirror.example/debian-security", "bookworm-security"),
        ("https://third.example/repo", "nodistro"),
        ("cdrom://[Debian 12]", "bookworm"),
    )
    archive = archives.read_archive(BOOKWORM, known)
    assert archive.lines(["amd64", "i386"]).splitlines() == [
        f"deb [arch=amd64,i386 signed-by=/keys/debian.gpg] http://mirror.example/{rest} main"
        for rest in (
            "debian trixie",
            "debian trixie-updates",
            "debian-security trixie-security",
        )
    ]


@pytest.mark.usefixtures("_keyring")
def test_debian_13_and_suites_named_stable() -> None:
    trixie = {"ID": "debian", "VERSION_CODENAME": "trixie"}
    archive = archives.read_archive(trixie, sources(("http://mirror.example/debian/", "stable")))
    assert archive.sources == (("http://mirror.example/debian", "trixie"),)


@pytest.mark.usefixtures("_keyring")
@pytest.mark.parametrize(
    "release",
    [
        {"ID": "ubuntu", "VERSION_CODENAME": "noble"},
        {"ID": "linuxmint", "VERSION_CODENAME": "xia", "UBUNTU_CODENAME": "noble"},
    ],
)
def test_ubuntu_uses_its_own_release_with_universe(release: dict[str, str]) -> None:
    archive = archives.read_archive(release, sources(("http://mirror.example/ubuntu", "noble")))
    assert (archive.distribution, archive.suite) == ("ubuntu", "noble")
    assert archive.components == "main universe"
    assert archive.keyring == Path("/keys/ubuntu.gpg")


@pytest.mark.usefixtures("_keyring")
def test_a_named_debian_mirror_replaces_the_machine_s_own() -> None:
    noble = {"ID": "ubuntu", "VERSION_CODENAME": "noble"}
    archive = archives.read_archive(noble, "", "http://mirror.example/debian")
    assert archive.sources[0] == ("http://mirror.example/debian", "trixie")
    assert archive.keyring == Path("/keys/debian.gpg")


def test_another_distribution_is_told_what_to_install(
    folder: Path, command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("apt-get", "")
    command("dpkg", "")
    fedora = {"ID": "fedora", "PRETTY_NAME": "Fedora Linux 41"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: fedora)
    with pytest.raises(FetchError, match="Fedora Linux 41 is neither Debian nor Ubuntu") as caught:
        tool.fetch(tool.missing())
    assert "MicroPython 1.24+" in caught.value.hint
    assert "mosquitto 2+" in caught.value.hint
    assert "sshd 8.4+" in caught.value.hint


def test_no_usable_source_is_an_error() -> None:
    with pytest.raises(FetchError, match="no source of the distribution's own packages"):
        archives.read_archive(BOOKWORM, sources(("https://third.example/repo", "nodistro")))


@needs_apt
@pytest.mark.usefixtures("_keyring")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "one-line.list",
            (
                "# deb http://off.example/debian bookworm main\n"
                "deb-src [arch=amd64 trusted=yes] http://mirror.example/debian bookworm main\n"
                "deb [arch=amd64 trusted=yes] http://mirror.example/debian bookworm main contrib\n"
            ),
        ),
        (
            "deb822.sources",
            (
                "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\n"
                "Components: main\nSigned-By: /usr/share/keyrings/other.gpg\n\n"
                "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\n"
                "Components: main\nEnabled: no\n"
            ),
        ),
    ],
)
def test_apt_reads_both_styles_of_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / name).write_text(text)
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "{tmp_path}/parts";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    archive = archives.read_archive(BOOKWORM, archives.known_sources())
    assert archive.sources == (("http://mirror.example/debian", "trixie"),)
    assert "trusted" not in archive.lines(["amd64"])


@needs_apt
def test_broken_sources_are_told_in_apt_s_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.list").write_text("deb [ http://mirror.example/debian bookworm main\n")
    (tmp_path / "apt.conf").write_text(f'Dir::Etc::sourcelist "{tmp_path}/broken.list";')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    with pytest.raises(FetchError, match=r"Malformed entry 1 .*broken.list"):
        archives.known_sources()


# Fetching


def architecture() -> str:
    return subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()


class Mirror:
    """An archive on disk with one package, `netzpuls-probe`, and a library that it needs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "mirror"
        self.home = folder / "gpg"
        self.home.mkdir(parents=True, mode=0o700)
        self.keyring = self.key("archive")
        self.index = self.root / "dists/trixie/main" / f"binary-{architecture()}"
        self.index.mkdir(parents=True)
        entries = [self.package("libprobe1", ""), self.package("probe-tool", "libprobe1")]
        (self.index / "Packages").write_text("\n".join(entries))
        self.sign("archive")

    def gpg(self, *arguments: str) -> bytes:
        return subprocess.run(
            ["gpg", "--homedir", self.home, "--batch", "--yes", "--passphrase", "", *arguments],
            capture_output=True,
            check=True,
        ).stdout

    def key(self, name: str) -> Path:
        self.gpg("--quick-generate-key", name, "ed25519", "sign", "never")
        keyring = self.home / f"{name}.gpg"
        keyring.write_bytes(self.gpg("--export", name))
        return keyring

    def package(self, name: str, depends: str) -> str:
        tree = self.root / name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/lib").mkdir(parents=True)
        (tree / "usr/lib" / name).write_text("content")
        control = f"Package: {name}\nVersion: 2.1-1\nArchitecture: {architecture()}\n"
        control += "Maintainer: nobody <nobody@example.org>\nDescription: none\n"
        control += f"Depends: {depends}\n" if depends else ""
        (tree / "DEBIAN" / "control").write_text(control)
        deb = self.root / f"{name}.deb"
        subprocess.run(["dpkg-deb", "-b", tree, deb], capture_output=True, check=True)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        size = deb.stat().st_size
        return f"{control}Filename: {deb.name}\nSize: {size}\nSHA256: {digest}\n"

    def sign(self, name: str) -> None:
        data = (self.index / "Packages").read_bytes()
        release = self.root / "dists/trixie/Release"
        release.write_text(
            "Origin: Test\nSuite: trixie\nCodename: trixie\nComponents: main\n"
            f"Architectures: {architecture()}\nDate: Sat, 01 Nov 2025 00:00:00 UTC\nSHA256:\n"
            f" {hashlib.sha256(data).hexdigest()} {len(data)} "
            f"main/binary-{architecture()}/Packages\n"
        )
        signed = str(release.with_name("InRelease"))
        self.gpg("--default-key", name, "--output", signed, "--clearsign", str(release))

    def archive(self, keyring: Path | None = None) -> Archive:
        source = (f"copy:{self.root}", "trixie")
        return Archive("debian", "trixie", "main", keyring or self.keyring, (source,))


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    made = Mirror(tmp_path)
    yield made
    subprocess.run(
        ["gpgconf", "--homedir", made.home, "--kill", "all"], capture_output=True, check=False
    )


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> program.Tool:
    each = program.Tool("probe-tool", "the probe", (2,), (), "", "install the probe")
    monkeypatch.setitem(tool.PACKAGES, "probe-tool", "probe-tool")
    return each


def fetched(archive: Archive, scratch: Path, each: program.Tool) -> Path:
    scratch.mkdir()
    apt = archives.Apt(scratch / "apt", archive, (architecture(),))
    apt.update()
    tool._fetch_tree(apt, architecture(), [each], scratch / architecture())
    return scratch / architecture()


@needs_gpg
def test_a_signed_package_and_its_library_are_unpacked(
    tmp_path: Path, mirror: Mirror, probe: program.Tool
) -> None:
    tree = fetched(mirror.archive(), tmp_path / "scratch", probe)
    assert (tree / "usr/lib/probe-tool").read_text() == "content"
    assert (tree / "usr/lib/libprobe1").read_text() == "content"


@needs_gpg
def test_another_signer_is_refused(tmp_path: Path, mirror: Mirror, probe: program.Tool) -> None:
    mirror.key("stranger")
    mirror.sign("stranger")
    with pytest.raises(FetchError, match=r"apt found no probe-tool .* verify: .*sign"):
        fetched(mirror.archive(), tmp_path / "scratch", probe)


@needs_gpg
def test_no_signature_is_refused(tmp_path: Path, mirror: Mirror, probe: program.Tool) -> None:
    (mirror.root / "dists/trixie/InRelease").unlink()
    with pytest.raises(FetchError, match=r"is not signed"):
        fetched(mirror.archive(), tmp_path / "scratch", probe)


@needs_gpg
def test_an_altered_package_is_refused(tmp_path: Path, mirror: Mirror, probe: program.Tool) -> None:
    deb = mirror.root / "probe-tool.deb"
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(data)
    with pytest.raises(FetchError, match=r"could not download .*Hash"):
        fetched(mirror.archive(), tmp_path / "scratch", probe)


@needs_gpg
def test_an_archive_with_too_old_a_version_says_so(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tool.PACKAGES, "probe-tool", "probe-tool")
    newer = program.Tool("probe-tool", "the probe", (3,), (), "", "install the probe")
    with pytest.raises(FetchError, match=r"the probe 3 or newer is needed.* has 2\.1$") as caught:
        fetched(mirror.archive(), tmp_path / "scratch", newer)
    assert "DEBIAN_MIRROR" in caught.value.hint


def test_a_second_run_asks_nobody(
    folder: Path, command: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    asked = command("apt-get", "echo asked >&2")
    command("dpkg", "echo asked >&2")
    assert asked.exists()
    for name in tool.TOOLS:
        command(name, "", folder / "bin")
    assert tool.main() == 0
    assert capfd.readouterr() == ("", "")


def test_without_apt_the_error_names_what_to_install(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tool.main() == 3
    message = capfd.readouterr().err
    assert message.startswith("error: missing, and there is no apt to fetch it: MicroPython, ")
    assert "hint: install these by hand" in message
    assert not folder.exists()


def test_a_full_disk_is_named(
    folder: Path, command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("apt-get", "exit 100")
    command("dpkg", "")
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=12 << 20))
    with pytest.raises(FetchError, match=f"not enough space in {folder}: 12 MiB are free"):
        tool.fetch(tool.missing())
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_an_interruption_leaves_nothing(
    folder: Path, command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("apt-get", "")
    command("dpkg", "")

    def interrupted(wanted: object, folder: Path, scratch: Path, mirror: str) -> None:
        (scratch / "half").write_text("")
        raise KeyboardInterrupt

    (folder / "fetch-of-a-killed-run").mkdir(parents=True)
    monkeypatch.setattr(tool, "_fetch", interrupted)
    assert tool.main() == 130
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, folder: Path, command: Callable[..., Path]
) -> None:
    command("apt-get", "")
    command("dpkg", "")
    folder.write_text("a file stands where the folder should be")
    with pytest.raises(FetchError, match="cannot write the tools") as caught:
        tool.fetch(tool.missing())
    assert str(folder) in caught.value.hint
