"""The shape of the code base: who may import whom, and what lock files may say."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"fleet", "provisioning", "hil", "firmware", "benchmarks", "tests"}
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))

# What stands on what in fleet/: a module imports from lower numbers, or from its own where a rank
# is not closed. What is not named is an operation.
OPERATION = 3
FLEET_RANK = {
    "errors": 0,
    "document": 1,
    "file": 1,
    "period": 1,
    "text": 1,
    "tool": 1,
    "reportkey": 1,
    "inventory": 2,
    "ssh": 2,
    "store": 2,
    "cli": 4,
}
CLOSED = {0, 2}


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the path of every module in a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(source: str, name: str, is_package: bool = False) -> set[str]:
    """Return what a module imports, anywhere in it, with relative names made absolute.

    `from a import b` counts as `a.b`, because b may be a module.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*parts, base] if base else parts)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def imported(package: str) -> dict[str, set[str]]:
    """Return what each module of a package imports."""
    return {
        name: imports(path.read_text(), name, path.name == "__init__.py")
        for name, path in modules(package)
    }


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def breaches(package: str, forbidden: set[str], allowed: frozenset[str] = frozenset()) -> list[str]:
    """Return `module imports other` for each import of something forbidden and not allowed."""
    return [
        f"{module} imports {name}"
        for module, names in imported(package).items()
        for name in sorted(names)
        if within(name, forbidden) and not within(name, set(allowed))
    ]


def test_imports_are_found_wherever_they_stand() -> None:
    source = (
        "import a.b as c, d\n"
        "from e import f\n"
        "from . import g\n"
        "from ..h import i\n"
        "def late():\n    from .j import k\n"
    )
    inner = {"a.b", "d", "e.f", "x.y.g", "x.h.i", "x.y.j.k"}
    assert imports(source, "x.y.z") == inner
    assert imports(source, "x.y", is_package=True) == inner


def test_fleet_knows_neither_desk_nor_bench_nor_board() -> None:
    forbidden = OURS - {"fleet"}
    assert breaches("fleet", forbidden, frozenset({"firmware.linkreport"})) == []


def test_provisioning_takes_only_the_base_of_fleet() -> None:
    base = {f"fleet.{name}" for name, rank in FLEET_RANK.items() if rank < OPERATION}
    allowed = {
        *base,
        *("fleet.authority", "fleet.login", "fleet.revocation", "fleet.cli.output"),
        "fleet.cli.login",
        # The bench's gateway is told its boards by the desk.
        *("fleet.gateway.keyring", "fleet.gateway.settings", "fleet.gateway.database"),
        *("firmware.linkreport", "provisioning"),
    }
    # The image holds the board's sources as data: the package itself says where they are.
    assert [
        breach
        for breach in breaches("provisioning", OURS, frozenset(allowed))
        if not breach.endswith(" imports firmware")
    ] == []


def test_linkreport_needs_nothing() -> None:
    forbidden = OURS | {"agent", "port", "linkreport", "machine", "network", "asyncio"}
    assert breaches("firmware/linkreport", forbidden, frozenset({"firmware.linkreport"})) == []


def test_the_agent_needs_only_port_and_linkreport() -> None:
    hardware = {"machine", "network", "esp32", "esp", "ntptime", "bluetooth"}
    allowed = frozenset({"firmware.agent"})
    assert breaches("firmware/agent", OURS | hardware, allowed) == []


def test_the_port_knows_no_agent() -> None:
    assert breaches("firmware/port", OURS | {"agent"}, frozenset({"firmware.port"})) == []


def test_only_the_bench_and_tests_import_the_agent() -> None:
    board_code = {"firmware.agent", "firmware.port", "agent", "port"}
    assert breaches("fleet", board_code) == []
    assert breaches("provisioning", board_code) == []


# These reach no user as they are.
OWN_ERRORS = re.compile(
    r"(?!(OS|BlockingIO|Value|Type|Timeout|Storage|Repl|_Damaged)Error)\w+Error"
)


@pytest.mark.parametrize("package", ["fleet", "provisioning"])
def test_every_error_says_what_to_do_next(package: str) -> None:
    calls = [
        (module, node)
        for module, path in modules(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if OWN_ERRORS.fullmatch(node.func.id)
    ]
    mute = [
        f"{module} line {node.lineno}: {ast.unparse(node)}"
        for module, node in calls
        if not any(keyword.arg == "hint" for keyword in node.keywords)
    ]
    assert len(calls) > 20
    assert [each for each in mute if "NetzpulsError('interrupted')" not in each] == []


@pytest.mark.parametrize("package", ["fleet", "provisioning", "hil", "firmware", "benchmarks"])
def test_only_one_module_imports_fabric(package: str) -> None:
    ssh = {"fabric", "paramiko", "invoke"}
    assert [each for each in breaches(package, ssh) if not re.match(r"fleet\.ssh[. ]", each)] == []


def test_fleet_is_built_from_the_bottom_up() -> None:
    def rank(module: str) -> int:
        return FLEET_RANK.get(module.removeprefix("fleet.").partition(".")[0], OPERATION)

    wrong = []
    for module, names in imported("fleet").items():
        for name in sorted(names):
            if module == "fleet" or not name.startswith("fleet."):
                continue
            same = module.split(".")[1] == name.split(".")[1]
            above = rank(name) > rank(module)
            beside = rank(name) == rank(module) and rank(module) in CLOSED
            if not same and (above or beside):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_there_are_lock_files() -> None:
    stems = [lock.stem for lock in LOCKS]
    assert stems == ["build", "dev", "gateway", "run", "scale", "stubs"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_each_requirement_by_hash_and_names_no_place(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("--hash", ""), re.MULTILINE)
    requirements = text.replace("\\\n", " ").splitlines()
    assert requirements
    for requirement in requirements:
        pinned = r"[a-z0-9._-]+==[^ ]+( ; [^\\]+?)?( +--hash=sha256:[0-9a-f]{64})+ *"
        assert re.fullmatch(pinned, requirement), requirement


def test_locks_agree_with_each_other() -> None:
    pins: dict[str, set[str]] = {}
    for name in ("run", "dev", "build", "gateway"):
        for line in (ROOT / "requirements" / f"{name}.lock").read_text().splitlines():
            if match := re.match(r"([a-z0-9._-]+)==(\S+)( ; .*?)? \\", line):
                pins.setdefault(match[1] + (match[3] or ""), set()).add(match[2])
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}


def test_tracked_files_name_no_registry() -> None:
    """Whoever builds this has an index and a mirror of their own: only known hosts stand here."""
    git = shutil.which("git")
    if not git or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout: run the tests in a clone")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    known = re.compile(r"(.*\.)?(example|micropython\.org|apache\.org|w3\.org)")
    named = re.compile(rb"https?://([A-Za-z0-9.-]*[A-Za-z])|--(?:extra-)?index-url")
    found = {
        (name.decode(), match[0].decode())
        for name in listed.stdout.split(b"\0")
        if name and (ROOT / name.decode()).is_file()
        for match in named.finditer((ROOT / name.decode()).read_bytes())
        if not (match[1] and known.fullmatch(match[1].decode()))
    }
    assert found == set()
