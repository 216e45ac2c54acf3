"""Short scripts on a host, as root."""

from __future__ import annotations

from importlib import resources

from fleet.errors import HostError
from fleet.ssh import Session

_OUTPUT_BYTES = 1 << 20


class Shell:
    """Runs scripts of /bin/sh as root, over one session.

    Who logs in is root, or may become it by `sudo` without being asked.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sudo = False

    def run(self, script: str, *arguments: str, stdin: bytes = b"") -> str:
        """Run a script to its end and return what it printed.

        Args:
            script: for `sh -eu`; secrets come by stdin, for arguments are seen by all.
            arguments: `$1` and on.
            stdin: what it may read.

        Raises: HostError: it failed, in its own words; or the connection broke.
        """
        host = self._session.host
        line = [*self._as_root(), "sh", "-euc", script, "netzpuls", *arguments]
        with self._session.command(line) as command:
            command.send(stdin)
            said = command.stdout.read(_OUTPUT_BYTES + 1)
            if len(said) > _OUTPUT_BYTES:
                raise HostError(
                    f"{host.label} ({host.name}) does not stop answering",
                    hint=f"log in there and see what is wrong: ssh {host.user}@{host.address}",
                )
            command.finish()
        return said.decode("utf-8", "replace")

    def _as_root(self) -> list[str]:
        """Return what makes a command one of root's.

        Raises: HostError: nothing does.
        """
        session, host = self._session, self._session.host
        if host.user == "root":
            return []
        if not self._sudo:
            with session.command(["sudo", "-n", "true"]) as command:
                command.send(b"")
                command.stdout.read(_OUTPUT_BYTES)
                code = command.wait()
            if code != 0:
                raise HostError(
                    f"{host.label} ({host.name}): {host.user} cannot become root by sudo without a "
                    "password",
                    hint="as root there: apt-get install sudo; echo "
                    f"'{host.user} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{host.user}",
                )
            self._sudo = True
        return ["sudo", "-n"]


def script(name: str) -> str:
    """Return one of the texts in remote/."""
    return resources.files("fleet.install").joinpath("remote", name).read_text(encoding="utf-8")
