"""Kernel and initrd out of the CD of a distribution."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from publisher.build.iso import extract
from publisher.errors import BuildError


def cd(path: Path, **kind: Any) -> Path:
    """An ISO with /casper/vmlinuz by its Rock Ridge, Joliet or plain name."""
    made = pycdlib.PyCdlib()
    made.new(**kind)
    names: list[dict[str, Any]] = [{}, {}]
    if "rock_ridge" in kind:
        names = [{"rr_name": "casper"}, {"rr_name": "vmlinuz"}]
    if "joliet" in kind:
        names = [{"joliet_path": "/casper"}, {"joliet_path": "/casper/vmlinuz"}]
    made.add_directory("/CASPER", **names[0])
    made.add_fp(io.BytesIO(b"a kernel"), 8, "/CASPER/VMLINUZ.;1", **names[1])
    made.write(str(path))
    made.close()
    return path


@pytest.mark.parametrize("kind", [{"rock_ridge": "1.09"}, {"joliet": 3}, {}])
def test_a_file_is_found_by_the_name_that_a_mounted_cd_shows(
    kind: dict[str, Any], tmp_path: Path
) -> None:
    iso = cd(tmp_path / "cd.iso", **kind)
    extract(iso, "/casper/vmlinuz", tmp_path / "kernel", "build.source.installer.kernel")
    assert (tmp_path / "kernel").read_bytes() == b"a kernel"


def test_what_is_not_there_names_its_key(tmp_path: Path) -> None:
    iso = cd(tmp_path / "cd.iso", rock_ridge="1.09")
    with pytest.raises(BuildError, match="holds no file /install/vmlinuz") as caught:
        extract(iso, "install/vmlinuz", tmp_path / "kernel", "build.source.installer.kernel")
    assert caught.value.key == "build.source.installer.kernel"
    (tmp_path / "page.iso").write_text("<html>404")
    with pytest.raises(BuildError, match="is no ISO image"):
        extract(tmp_path / "page.iso", "vmlinuz", tmp_path / "kernel", "key")
