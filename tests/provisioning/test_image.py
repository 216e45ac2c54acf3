"""The board's code, compiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning import image
from provisioning.errors import ImageError


def test_the_agent_is_compiled_and_starts_from_source() -> None:
    files = image.agent_files()
    assert {"boot.py", "main.py", "linkreport/report.mpy", "agent/config.mpy"} <= set(files)
    compiled = {name: content for name, content in files.items() if name.endswith(".mpy")}
    assert all(content[:2] == b"M\x06" for content in compiled.values())
    assert not [name for name in files if "pycache" in name]
    # A traceback on the board names the module, not a folder of this machine.
    assert not [name for name, content in files.items() if str(Path.cwd()).encode() in content]


def test_code_that_does_not_compile_is_named(tmp_path: Path) -> None:
    source = tmp_path / "wrong.py"
    source.write_text("def (:\n")
    with pytest.raises(ImageError, match=r"wrong\.py"):
        image._compile(source, "agent/wrong.py")
