"""Install, upgrade, roll back, remove: survey, plan and apply on many hosts, side by side."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fleet import authority, file, runner
from fleet.authority import Authority
from fleet.errors import ConfigurationError, HostError, NetzpulsError, UsageError
from fleet.gateway import prepare
from fleet.gateway.settings import Folder
from fleet.install import plan as planning
from fleet.install import survey as surveying
from fleet.install.plan import Call, FolderFile, Plan, Step, Wanted
from fleet.install.shell import Shell, script
from fleet.install.survey import Survey
from fleet.install.wheelhouse import Wheelhouse
from fleet.inventory import Inventory
from fleet.login import host_of
from fleet.runner import Stop
from fleet.ssh import Deadlines, Session, public_key

DEFAULT_PARALLEL = 16
DEFAULT_TIMEOUT_S = 1800.0
# apt and pip are quiet for as long as they work.
_SILENCE_S = 600.0
_FOLDER = "gateway"
# The first one for the certificate's key: at no moment is there a certificate without its key.
_FILES = (
    "gateway.toml", "boards.toml", "tls/ca.pem", "tls/revoked.pem",
    "tls/gateway.key", "tls/gateway.pem", "tls/collector.key", "tls/collector.pem",
)  # fmt: skip


class InstallationError(NetzpulsError):
    """Some hosts, or all, are not as they should be; each has its own error."""

    code = "hosts-failed"


@dataclass
class Done:
    """What became of one host.

    Attributes:
        plan: what was to be done; None if the host could not even be asked.
        done: how many seconds each step took that was done.
        step: the one that is being done, or that failed.
        detail: how far it is.
    """

    gateway: str
    plan: Plan | None = None
    done: list[tuple[Step, float]] = field(default_factory=list)
    step: Step | None = None
    detail: str = ""
    restored: bool = False
    duration_s: float = 0.0
    finished: bool = False
    error: NetzpulsError | None = None

    def document(self, *, dry_run: bool) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        document: dict[str, Any] = {
            "gateway": self.gateway,
            "ok": self.error is None,
            "changed": bool(self.done),
            "restored": self.restored,
            "duration_s": round(self.duration_s, 3),
            "dry_run": dry_run,
        }
        if self.plan:
            document |= self.plan.document()
        document["done"] = [
            step.document() | {"duration_s": round(took_s, 3)} for step, took_s in self.done
        ]
        return document | (self.error.document() if self.error else {})


Progress = Callable[[Done], None]


class _Planner(Protocol):
    """Makes the plan for one host from what is there."""

    def __call__(self, survey: Survey, wanted: Wanted) -> Plan: ...


@dataclass(frozen=True)
class Options:
    """How to go about it.

    Attributes:
        login: who logs in on the hosts: root, or one who may `sudo` without being asked.
        timeout_s: how long one host may take in all.
        parallel: how many at a time.
        dry_run: ask and plan, change nothing.
    """

    login: str = "root"
    timeout_s: float = DEFAULT_TIMEOUT_S
    parallel: int = DEFAULT_PARALLEL
    dry_run: bool = False


def install(
    city: Inventory,
    gateways: Sequence[str],
    wheelhouse: Wheelhouse,
    options: Options,
    on_progress: Progress = lambda _: None,
    *,
    anew: bool = True,
) -> list[Done]:
    """Make hosts into gateways, or bring them to this release.

    Args:
        city: whose gateways.
        gateways: which of them.
        wheelhouse: where the release's packages are.
        options: how.
        on_progress: called from worker threads whenever something was done.
        anew: also hosts that are no gateways yet; else these are refused.

    Raises: UsageError, ConfigurationError: the call or the city's folder is wrong; nothing was
        done. What happens to one host stands in its `Done`.
    """

    def planner(survey: Survey, wanted: Wanted) -> Plan:
        if not anew and not survey.installed:
            raise HostError(
                f"nothing is installed on {wanted.label}",
                hint=f"netzpuls gateway install {wanted.gateway}",
            )
        release = wheelhouse.release(planning.target(survey, wanted))
        return planning.install(survey, wanted, release)

    prepared = _prepared(city, gateways, options)
    return _Work(city, planner, options, on_progress, prepared).run(gateways)


def rollback(
    city: Inventory,
    gateways: Sequence[str],
    options: Options,
    on_progress: Progress = lambda _: None,
) -> list[Done]:
    """Have gateways run the release that they ran before."""
    return _Work(city, planning.rollback, options, on_progress).run(gateways)


def remove(
    city: Inventory,
    gateways: Sequence[str],
    options: Options,
    on_progress: Progress = lambda _: None,
    *,
    erase: bool,
) -> list[Done]:
    """Take Netzpuls off hosts."""

    def planner(survey: Survey, wanted: Wanted) -> Plan:
        return planning.remove(survey, wanted, erase=erase)

    return _Work(city, planner, options, on_progress).run(gateways)


@dataclass(frozen=True)
class _Work:
    """The same for many hosts; `prepared` is what city hall has for the folder of each."""

    city: Inventory
    planner: _Planner
    options: Options
    on_progress: Progress
    prepared: Mapping[str, prepare.Plan] = field(default_factory=dict)

    def run(self, gateways: Sequence[str]) -> list[Done]:
        """Do it, side by side."""
        wanted = {each: _wanted(self.city, each, self.prepared.get(each)) for each in gateways}
        found = {each: Done(each) for each in gateways}

        def work(gateway: str, stop: Stop) -> None:
            began_s = time.monotonic()
            try:
                self._one(wanted[gateway], found[gateway], stop)
            finally:
                found[gateway].duration_s = time.monotonic() - began_s

        for outcome in runner.run(list(gateways), work, self.options.parallel):
            done = found[outcome.target]
            done.error, done.finished = outcome.error, True
            self.on_progress(done)
        return list(found.values())

    def _one(self, wanted: Wanted, done: Done, stop: Stop) -> None:
        host = replace(host_of(self.city, wanted.gateway), user=self.options.login)
        session = Session(host, Deadlines(silence_s=_SILENCE_S, session_s=self.options.timeout_s))
        with _alone(self.city, wanted.gateway, self.options), stop.closing(session), session:
            shell = Shell(session)
            survey = surveying.take(shell, wanted.label, wanted.user, wanted.data, wanted.paths)
            done.plan = self.planner(survey, wanted)
            self.on_progress(done)
            if self.options.dry_run:
                return
            if wanted.gateway in self.prepared:
                # City hall keeps what it gives, before it gives it: the next run must find the
                # same keys.
                prepare.apply(self.prepared[wanted.gateway])
            for step in done.plan.steps:
                self._step(shell, step, done, survey)
            done.step, done.detail = None, ""

    def _step(self, shell: Shell, step: Step, done: Done, survey: Survey) -> None:
        done.step, began_s = step, time.monotonic()
        try:
            for number, call in enumerate(step.calls, 1):
                done.detail = f"{number} of {len(step.calls)}" if len(step.calls) > 1 else ""
                self.on_progress(done)
                _call(shell, call)
        except HostError as error:
            if step.restores:
                _restore(shell, step, survey.current, error)
                done.restored = True
                raise HostError(
                    f"{error.message}; {survey.current} runs again", hint=error.hint
                ) from None
            raise
        done.done.append((step, time.monotonic() - began_s))


def _restore(shell: Shell, step: Step, release: str, error: HostError) -> None:
    """Go back to what ran before.

    Raises: HostError: that failed, too.
    """
    try:
        for call in step.restores:
            _call(shell, call)
    except HostError as second:
        raise HostError(
            f"{error.message}; and going back to {release} failed: {second.message}",
            hint="log in there and look; the next run tries again",
        ) from None


def _call(shell: Shell, call: Call) -> None:
    shell.run(script(call.script), *call.arguments, stdin=call.content)


def _wanted(city: Inventory, gateway: str, prepared: prepare.Plan | None) -> Wanted:
    entry = city.gateway(gateway)
    if entry.user == "root":
        raise ConfigurationError(
            f"the inventory has city hall log in as root on {gateway}",
            hint='a gateway has a user of its own: user = "netzpuls"; only the installation '
            "logs in as root",
        )
    key = public_key(host_of(city, gateway))
    return Wanted(
        gateway,
        f"gateway {gateway}",
        entry.user,
        entry.data_dir.rstrip("/"),
        _content(prepared) if prepared else [],
        f"restrict {key} netzpuls" if key else "",
        entry.broker_port,
    )


def _prepared(
    city: Inventory, gateways: Sequence[str], options: Options
) -> dict[str, prepare.Plan]:
    """Return what is in the folder of each gateway, as city hall keeps it below secrets/.

    Raises: ConfigurationError, AuthorityError: a file of the city is missing or wrong.
    """
    ca = _trial_authority(city) if options.dry_run else authority.ensure(city.folder, city.city.id)
    return {
        each: prepare.plan(
            city, ca, each, Folder(_folder(city, each)),
            listen="0.0.0.0",  # noqa: S104 - boards come from the LAN
        )
        for each in gateways
    }  # fmt: skip


def _trial_authority(city: Inventory) -> Authority:
    """Return the city's CA, or in its place, where there is none yet, one that nobody will know."""
    if authority.exists(city.folder):
        return authority.load(city.folder)
    with tempfile.TemporaryDirectory() as folder:
        return authority.ensure(Path(folder), city.city.id)


def _content(prepared: prepare.Plan) -> list[FolderFile]:
    """Return the folder as it will be: what is there, and what changes."""
    folder = prepared.folder.path
    changes = {change.path: change for change in prepared.changes}
    found = []
    for name in _FILES:
        path = folder / name
        if path in changes:
            found.append(FolderFile(name, changes[path].content, changes[path].mode))
        elif path.exists():
            found.append(FolderFile(name, path.read_bytes(), path.stat().st_mode & 0o777))
    return found


def _folder(city: Inventory, gateway: str) -> Path:
    return city.secrets / _FOLDER / gateway


@contextlib.contextmanager
def _alone(city: Inventory, gateway: str, options: Options) -> Iterator[None]:
    """Keep two installations of one host apart; one that only looks may look any time.

    Raises: UsageError: another one works on it.
    """
    if options.dry_run:
        yield
        return
    file.secret_folder(city.secrets)
    folder = file.private_folder(_folder(city, gateway))
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(file.locked(folder, wait=False))
        except BlockingIOError as error:
            raise UsageError(
                f"another installation works on {gateway}: {error.strerror}",
                hint="wait until it has ended",
            ) from None
        yield
