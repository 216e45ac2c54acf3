"""What the modules of the board's code are called on a board."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest

import firmware
from hil import tool
from provisioning.constant import inlined
from provisioning.flat import flattened, known_as
from provisioning.usage import module

FIRMWARE = Path(firmware.__file__).parent
SOURCES = sorted(path.relative_to(FIRMWARE).as_posix() for path in FIRMWARE.rglob("*.py"))
STUBS = FIRMWARE.parent / ".tools" / "stubs"  # of the ESP32's build
MODULES = [name for name in SOURCES if "/" in name]
# Tells which of these modules there are.
ASK = """\
for name in %r:
    try:
        __import__(name)
        print(name)
    except ImportError:
        pass
"""


def test_a_module_goes_by_its_last_part() -> None:
    assert known_as("agent/probes/radio.py") == "radio"
    assert known_as("agent/sensor/__init__.py") == "sensor"
    assert known_as("linkreport/ack.py") == "ack"


def test_what_is_called_over_the_repl_or_is_not_the_only_one_stays() -> None:
    assert known_as("agent/supervisor.py") == "agent.supervisor"
    assert known_as("agent/bench.py") == "agent.bench"
    assert known_as("linkreport/bench.py") == "linkreport.bench"
    assert known_as("agent/agent.py") == "agent.agent"  # the package is called so
    assert known_as("agent/__init__.py") == "agent"
    assert known_as("port/esp32.py") == "port.esp32"
    assert known_as("main.py") == "main"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from ..loan import borrow, use as ask", "from loan import borrow, use as ask"),
        ("from ..deadline import sleep_ms", "from deadline import sleep_ms"),
        ("from . import Result", "from probes import Result"),
        ("from .. import VERSION", "from agent import VERSION"),
        ("from .. import delta, segment", "import delta; import segment"),
        ("from ..agent import Agent", "from agent.agent import Agent"),
        ("import linkreport.ack as wire", "import ack as wire"),
        ("import gc, linkreport.ack as wire", "import gc, ack as wire"),
        ("from linkreport import term", "import term"),
        ("from linkreport import bench", "from linkreport import bench"),
        ("from port import IDLE", "from port import IDLE"),
        ("import asyncio, struct", "import asyncio, struct"),
        ("from asyncio import core", "from asyncio import core"),
        ("x = borrow('agent.probes.' + name)", "x = borrow('' + name)"),
        ("é = 'é', 'agent.dns'  # agent.dns", "é = 'é', 'dns'  # agent.dns"),
        (
            "x = 'agent.bench', 'agent', 'agent.dns is'",
            "x = 'agent.bench', 'agent', 'agent.dns is'",
        ),
        ("from linkreport.frame import (\n    LABEL,\n)", "from frame import (\n    LABEL,\n)"),
        ("from .. import (\n    delta,\n)\nx = 1", "import delta\n\n\nx = 1"),
    ],
)
def test_imports_and_texts_are_put_in_other_words(before: str, after: str) -> None:
    assert flattened(before + "\n", "agent/probes/radio.py") == after + "\n"


def test_an_import_that_would_bind_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"import agent\.loan: on a board it has another name"):
        flattened("import agent.loan\nagent.loan.borrow('x')\n", "script.py")
    with pytest.raises(ValueError, match=r"'linkreport\.': some of these modules"):
        flattened("x = 'linkreport.' + y\n", "agent/dns.py")


def test_a_script_begins_with_the_agent() -> None:
    before = "import gc\nfrom agent.loan import use\nfrom agent import deadline\n"
    after = "import gc\nimport agent; from loan import use\nimport deadline\n"
    assert flattened(before, "script.py") == after
    assert flattened("from agent.supervisor import run\n", "main.py").endswith("import run\n")


@pytest.mark.parametrize("name", MODULES)
def test_every_import_leads_to_a_module(name: str) -> None:
    before = inlined((FIRMWARE / name).read_text(), name)
    after = flattened(before, name)
    assert len(after.splitlines()) - (name == "agent/__init__.py") == len(before.splitlines())
    known = {known_as(each) for each in MODULES}
    ours = {part for each in MODULES for part in module(each).split(".")}
    for node in ast.walk(ast.parse(after)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level or name.startswith("port/")
            asked = [node.module or ""] if not node.level else []
        else:
            asked = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        for each in asked:
            assert each in known | {"esp32"} or each.partition(".")[0] not in ours, each


@pytest.mark.parametrize("interpreter", ["micropython", "micropython32"])
def test_no_module_is_called_as_one_of_micropythons_own(interpreter: str) -> None:
    stubs = {path.name.removesuffix(".pyi") for path in STUBS.rglob("*")}
    assert {"esp32", "network", "umqtt"} <= stubs
    flat = [known_as(name) for name in MODULES if "." not in known_as(name)]
    ours = [name for name in flat if name not in {"agent", "linkreport", "port"}]
    assert len(ours) > 50
    assert not stubs & {*ours}
    environment = {**os.environ, "MICROPYPATH": ".frozen"}
    command = [tool.find(interpreter), "-c", ASK % ours]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
