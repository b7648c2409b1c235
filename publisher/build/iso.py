"""Files out of an ISO 9660 image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from publisher.errors import BuildError


def extract(iso: Path, inside: str, into: Path, key: str) -> None:
    """Write the file at the path `inside`, as a Linux system that mounts the CD shows
    it, to `into`. `key` is the pipeline's key path. Raises BuildError."""
    import pycdlib
    from pycdlib.pycdlibexception import PyCdlibException

    path = "/" + inside.strip("/")
    opened: Any = pycdlib.PyCdlib()
    try:
        opened.open(str(iso))
    except (PyCdlibException, OSError) as error:
        raise BuildError(f"{iso.name} is no ISO image: {error}", key=key) from error
    try:
        # the names that Linux prefers, see isofs's options in mount(8)
        if opened.has_rock_ridge():
            opened.get_file_from_iso(str(into), rr_path=path)
        elif opened.has_joliet():
            opened.get_file_from_iso(str(into), joliet_path=path)
        else:
            dot = "" if "." in path.rpartition("/")[2] else "."
            opened.get_file_from_iso(str(into), iso_path=f"{path.upper()}{dot};1")
    except PyCdlibException as error:
        raise BuildError(
            f"{iso.name} holds no file {path}", key=key, hint="look into it with: isoinfo -f -R -i"
        ) from error
    finally:
        opened.close()
