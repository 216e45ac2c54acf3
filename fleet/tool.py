"""Programs of others that Netzpuls runs, found on PATH or among those that `make setup` fetched.

PATH comes first, if its version will do; then the folder .tools/ of the checkout, or the one that
the environment variable NETZPULS_TOOLS names.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import ToolMissingError

# Daemons live where an ordinary user's PATH does not look.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_PROBE_TIMEOUT_S = 10


@dataclass(frozen=True)
class Tool:
    """A program: how to ask for its version, which one is needed, how to get it."""

    name: str
    title: str
    minimum: tuple[int, ...]
    probe: tuple[str, ...]
    pattern: str
    hint: str
    on_path: bool = True


MOSQUITTO = Tool(
    name="mosquitto",
    title="the MQTT broker mosquitto",
    minimum=(2,),
    probe=("-h",),
    pattern=r"mosquitto version (\d+(?:\.\d+)+)",
    hint="on Debian and Ubuntu: sudo apt install mosquitto; in a checkout: make setup",
)

JAVA = Tool(
    name="java",
    title="Java",
    minimum=(17,),
    probe=("-version",),
    pattern=r'version "(\d+(?:\.\d+)*)',
    hint="on Debian and Ubuntu: sudo apt install default-jre-headless; in a checkout: make scale",
)


def folder() -> Path:
    """Return the folder for fetched tools: $NETZPULS_TOOLS, or .tools/ of this checkout."""
    named = os.environ.get("NETZPULS_TOOLS")
    if named:
        return Path(named).absolute()
    checkout = Path(__file__).absolute().parent.parent
    if (checkout / "pyproject.toml").exists():
        return checkout / ".tools"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "netzpuls" / "tools"


@functools.cache
def find(tool: Tool) -> Path:
    """Return the absolute path of a tool that is new enough.

    Raises: ToolMissingError: it is neither on PATH nor fetched, or too old.
    """
    fetched = folder() / "bin" / tool.name
    on_path, version = on_system(tool)
    if on_path and version >= tool.minimum:
        return on_path
    if fetched.exists():
        return fetched
    needed = dotted(tool.minimum)
    if on_path:
        found = f"{on_path} is {dotted(version) or 'of no known version'}"
    else:
        found = f"{tool.name} is not on this machine"
    raise ToolMissingError(f"{tool.title} {needed} or newer is needed: {found}", hint=tool.hint)


def on_system(tool: Tool) -> tuple[Path | None, tuple[int, ...]]:
    """Return where the machine itself has a tool, if it does, and its version."""
    if not tool.on_path:
        return None, ()
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    found = shutil.which(tool.name, path=path)
    return (Path(found).absolute(), version_of(tool, Path(found))) if found else (None, ())


def version_of(tool: Tool, path: Path) -> tuple[int, ...]:
    """Ask the program at `path` for its version; empty if it gives none or does not run."""
    try:
        answer = subprocess.run(
            [path.absolute(), *tool.probe],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(tool.pattern, answer.stdout.decode(errors="replace"))
    return parse(match[1]) if match else ()


def parse(version: str) -> tuple[int, ...]:
    """Turn the leading digits and dots of a version into numbers: `2.0.11-1+deb12` → (2, 0, 11)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def dotted(version: tuple[int, ...]) -> str:
    """Write a version as people do: (1, 24) → `1.24`."""
    return ".".join(map(str, version))
