"""Another release, for upgrades: the same wheelhouse with some files of ours changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fleet.install.wheelhouse import Wheelhouse


def patched(house: Wheelhouse, folder: Path, changes: Mapping[str, str]) -> Wheelhouse:
    """Copy a wheelhouse and change files of Netzpuls' own wheel."""
    shutil.copytree(house.folder, folder)
    (wheel,) = (folder / "wheel").glob("netzpuls-*.whl")
    old = wheel.with_suffix(".old")
    wheel.rename(old)
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(wheel, "w") as sink:
        record = ""
        for item in source.infolist():
            text = source.read(item)
            if item.filename.endswith("/RECORD"):
                record = item.filename
                added = "".join(f"{path},,\n" for path in changes)
                text += added.encode()
            if item.filename not in changes:
                sink.writestr(item, text)
        assert record
        for path, content in changes.items():
            sink.writestr(path, content)
    old.unlink()
    path = folder / "wheelhouse.json"
    manifest = json.loads(path.read_text())
    manifest["wheels"][wheel.name] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    return Wheelhouse(folder)
