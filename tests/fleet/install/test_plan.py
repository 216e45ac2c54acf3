"""What a survey leads to; the real hosts are in tests/hil/host/test_install.py."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.errors import HostError, UsageError
from fleet.install import plan as planning
from fleet.install import survey as surveying
from fleet.install import unit
from fleet.install.layout import PACKAGES, PROGRAM, SERVICES
from fleet.install.plan import FolderFile, Wanted
from fleet.install.survey import PresentFile, Service, Survey
from fleet.install.wheelhouse import Release, Wheel

DATA = "/var/lib/netzpuls"
SECRET = b"-----BEGIN PRIVATE KEY-----"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    wheels = []
    for name in ("click-8.5.1-py3-none-any.whl", "netzpuls-0.1.0-py3-none-any.whl"):
        path = tmp_path / name
        path.write_bytes(name.encode())
        wheels.append(Wheel(path, hashlib.sha256(name.encode()).hexdigest()))
    return Release("0.1.0", tuple(wheels))


@pytest.fixture
def wanted() -> Wanted:
    folder = [
        FolderFile("gateway.toml", b"version = 1\n", 0o644),
        FolderFile("tls/gateway.key", SECRET, 0o600),
        FolderFile("tls/gateway.pem", b"certificate", 0o644),
    ]
    return Wanted("gw", "gateway gw", "netzpuls", DATA, folder, "restrict ssh-ed25519 A n", 8883)


def bare() -> Survey:
    return Survey(
        distribution="debian",
        release="12",
        title="Debian GNU/Linux 12 (bookworm)",
        architecture="amd64",
        init="systemd",
        free_bytes=10 << 30,
    )


def installed(wanted: Wanted, release: Release) -> Survey:
    """A host on which all was done."""

    def present(content: bytes, owner: str, mode: int) -> PresentFile:
        return PresentFile(hashlib.sha256(content).hexdigest(), owner, mode)

    units = unit.units(wanted.user, wanted.data)
    return replace(
        bare(),
        packages=set(PACKAGES),
        home=DATA,
        data=PresentFile("", "netzpuls", 0o750),
        tls=PresentFile("", "netzpuls", 0o700),
        current=release.id,
        command=str(PROGRAM),
        releases={release.id},
        wheels={each.name: each.digest for each in release.wheels},
        files={
            f"{DATA}/{each.path}": present(each.content, "netzpuls", each.mode)
            for each in wanted.folder
        }
        | {path: present(text, "root", 0o644) for path, text in wanted.system.items()},
        authorized=[wanted.authorized],
        services={
            name: Service(enabled=True, active=True, running=release.id, unit=units[name][1])
            for name in SERVICES
        },
    )


def names(plan: planning.Plan) -> list[str]:
    return [each.name for each in plan.steps]


def test_a_bare_host_needs_all_and_a_finished_one_nothing(wanted: Wanted, release: Release) -> None:
    assert names(planning.install(bare(), wanted, release)) == [
        *("packages", "user", "wheels", "venv", "folder", "login", "units", "start")
    ]
    assert names(planning.install(installed(wanted, release), wanted, release)) == []


def test_secrets_are_given_by_stdin_only(wanted: Wanted, release: Release) -> None:
    plan = planning.install(bare(), wanted, release)
    for step in plan.steps:
        assert "PRIVATE" not in str(step.document())
        for call in step.calls:
            assert not any("PRIVATE" in each for each in call.arguments)
    assert any(call.stdin == SECRET for step in plan.steps for call in step.calls)


def test_a_key_is_written_before_its_certificate(wanted: Wanted, release: Release) -> None:
    folder = next(
        each for each in planning.install(bare(), wanted, release).steps if each.name == "folder"
    )
    paths = [call.arguments[0] for call in folder.calls]
    assert paths.index(f"{DATA}/tls/gateway.key") < paths.index(f"{DATA}/tls/gateway.pem")


@pytest.mark.parametrize(
    ("service", "late"),
    [
        (Service(enabled=False, active=True), [SERVICES[1]]),
        (Service(enabled=True, active=False), [SERVICES[1]]),
        (Service(enabled=True, active=True, running="0.1.0-old"), [SERVICES[1]]),
        (Service(enabled=True, active=True, unit="0123456789abcdef"), [SERVICES[1]]),
    ],
)
def test_a_service_that_is_not_as_it_should_be_is_started_anew(
    wanted: Wanted, release: Release, service: Service, late: list[str]
) -> None:
    survey = installed(wanted, release)
    survey.services[SERVICES[1]] = service
    (step,) = planning.install(survey, wanted, release).steps
    assert step.name == "start"
    assert [call.arguments for call in step.calls] == [tuple(late)]


def test_an_upgrade_goes_back_if_it_fails_and_keeps_one_release(
    wanted: Wanted, release: Release
) -> None:
    survey = installed(wanted, release)
    survey.releases |= {"0.0.9-old", "0.0.8-older"}
    survey.current, survey.previous = "0.0.9-old", "0.0.8-older"
    plan = planning.install(survey, wanted, release)
    start, tidy = plan.steps
    assert start.calls[0].arguments == (release.id, "0.0.9-old")
    assert start.restores[0].arguments == ("0.0.9-old", "0.0.8-older")
    assert tidy.what == "remove old release 0.0.8-older"
    keep = tidy.calls[0].arguments
    assert set(keep[: keep.index("--")]) == {release.id, "0.0.9-old"}


def test_what_the_host_has_of_a_roster_is_left_alone(wanted: Wanted, release: Release) -> None:
    survey = installed(wanted, release)
    survey.files[f"{DATA}/gateway.toml"] = PresentFile("other", "netzpuls", 0o644)
    assert names(planning.install(survey, wanted, release)) == []
    survey.files[f"{DATA}/gateway.toml"] = PresentFile("other", "root", 0o644)
    with pytest.raises(HostError, match="belongs to root with mode 644") as error:
        planning.install(survey, wanted, release)
    assert "chown netzpuls:" in error.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distribution": "ubuntu", "title": "Ubuntu 24.04"}, "runs Ubuntu 24.04"),
        ({"release": "11", "title": "Debian 11"}, "runs Debian 11"),
        ({"init": "sh"}, "not run by systemd but by sh"),
        ({"free_bytes": 5 << 20}, "5 MiB free"),
        ({"home": "/home/x"}, "home is /home/x"),
    ],
)
def test_a_host_that_cannot_be_one(
    wanted: Wanted, release: Release, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(HostError, match=message) as error:
        planning.install(replace(bare(), **changes), wanted, release)  # type: ignore[arg-type]
    assert error.value.hint


def test_going_back(wanted: Wanted, release: Release) -> None:
    survey = installed(wanted, release)
    with pytest.raises(UsageError, match="no release to go back to"):
        planning.rollback(survey, wanted)
    survey.previous = "0.0.9-old"
    with pytest.raises(UsageError, match="no longer has"):
        planning.rollback(survey, wanted)
    survey.releases.add("0.0.9-old")
    (step,) = planning.rollback(survey, wanted).steps
    assert step.calls[0].arguments == ("0.0.9-old", release.id)


def test_removing(wanted: Wanted, release: Release) -> None:
    assert names(planning.remove(bare(), wanted, erase=False)) == []
    survey = installed(wanted, release)
    kept = planning.remove(survey, wanted, erase=False)
    assert kept.steps[0].calls[0].arguments[-1] == "keep"
    assert any(DATA in note for note in kept.notes)
    assert planning.remove(survey, wanted, erase=True).steps[0].calls[0].arguments[-1] == "erase"


class _Answer:
    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, *_: object, **__: object) -> str:
        return self.text


def take(text: str) -> Survey:
    return surveying.take(_Answer(text), "gateway gw", "netzpuls", DATA, [])  # type: ignore[arg-type]


def test_an_answer_is_read() -> None:
    survey = take(
        "distribution\tdebian\nrelease\t13\narchitecture\tarm64\ninit\tsystemd\nfree_kib\t2048\n"
        "package\tmosquitto\nuser\t/var/lib/netzpuls\ndata\tnetzpuls 750\ncurrent\t0.1.0-a\n"
        "venv\t0.1.0-a complete\nvenv\t0.1.0-b begun\nwheel\tabc x.whl\n"
        "file\tabc root 644 /etc/a b\nservice\tnetzpuls-broker.service enabled active 0.1.0-a d1\n"
        "reload\t0\nend\tsurvey\n"
    )
    assert str(survey.target) == "3.13-arm64"
    assert survey.free_bytes == 2 << 20
    assert survey.data == PresentFile("", "netzpuls", 0o750)
    assert (survey.releases, survey.begun) == ({"0.1.0-a"}, {"0.1.0-b"})
    assert survey.files == {"/etc/a b": PresentFile("abc", "root", 0o644)}
    broker = Service(enabled=True, active=True, running="0.1.0-a", unit="d1")
    assert survey.services == {SERVICES[0]: broker}


@pytest.mark.parametrize(
    "line",
    [
        "current\t../../etc",
        "current\t$(reboot)",
        "venv\ta b c",
        "free_kib\tplenty",
        "data\tnetzpuls rwx",
        "service\tnetzpuls-broker.service",
        "reload\tyes",
    ],
)
def test_a_hostile_answer_is_refused(line: str) -> None:
    with pytest.raises(HostError, match="makes no sense"):
        take(f"{line}\nend\tsurvey\n")


def test_an_answer_that_is_cut_is_no_answer() -> None:
    with pytest.raises(HostError, match="did not answer to the end"):
        take("distribution\tdebian\n")
