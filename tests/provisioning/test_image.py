"""The board's file system: whole, the same every time, readable by LittleFS itself."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from littlefs import LittleFS, UserContext

from provisioning import image
from provisioning.errors import ImageError

SIZE = 64 * image.BLOCK_BYTES


def read_files(content: bytes) -> dict[str, bytes]:
    """Read an image as an independent reader does."""
    littlefs = LittleFS(
        UserContext(buffer=bytearray(content)),
        block_size=4096,
        block_count=len(content) // 4096,
        read_size=32,
        prog_size=32,
        cache_size=128,
        lookahead_size=32,
        mount=False,
    )
    littlefs.mount()
    found = {}
    for folder, _, names in littlefs.walk("/"):
        for name in names:
            path = f"{folder.rstrip('/')}/{name}"
            with littlefs.open(path, "rb") as stream:
                found[path.lstrip("/")] = stream.read()
    return found


_name = st.text("abcxyz09-_.", min_size=1, max_size=12).filter(lambda n: n.strip("."))


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["", "agent/", "agent/probes/", "identity/"]), _name).map(
            "".join
        ),
        st.binary(max_size=9000),
        max_size=8,
    ).filter(lambda files: not any(f"{a}/" in b for a in files for b in files))
)
def test_what_goes_in_comes_out(files: dict[str, bytes]) -> None:
    content = image.file_system(files, SIZE)
    assert len(content) == SIZE
    assert read_files(content) == files
    assert image.file_system(dict(reversed(files.items())), SIZE) == content


def test_files_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ImageError, match="do not fit"):
        image.file_system({"a": bytes(SIZE)}, SIZE)


def test_no_content_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        image.file_system({"identity/report.key": b"geheim" * 10}, SIZE)
    assert "geheim" not in caplog.text


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
