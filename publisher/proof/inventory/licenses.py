"""Licences: from the names that distributions use to SPDX's identifiers."""

from __future__ import annotations

import re

_GNU = {"gpl": "GPL", "lgpl": "LGPL", "agpl": "AGPL", "gfdl": "GFDL"}
_GNU_NAME = re.compile(r"(gpl|lgpl|agpl|gfdl)-?(\d)(?:\.(\d))?(?:\.0)?(\+|-or-later|-only)?")
_NAMES = {
    "apache": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "artistic-2.0": "Artistic-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "bsl-1": "BSL-1.0",
    "bsl-1.0": "BSL-1.0",
    "cc0": "CC0-1.0",
    "cc0-1.0": "CC0-1.0",
    "curl": "curl",
    "expat": "MIT",
    "isc": "ISC",
    "mit": "MIT",
    "mpl-1.1": "MPL-1.1",
    "mpl-2": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "openssl": "OpenSSL",
    "psf": "PSF-2.0",
    "psf-2": "PSF-2.0",
    "python": "Python-2.0",
    "python-2.0": "Python-2.0",
    "unlicense": "Unlicense",
    "x11": "X11",
    "zlib": "Zlib",
}
"""Of Debian's copyright format 1.0, where they mean the same as SPDX's."""


def identifier(name: str) -> str:
    """The SPDX identifier of a licence's name in copyright files; "" where it has none."""
    low = name.strip().lower()
    gnu = _GNU_NAME.fullmatch(low)
    if gnu:
        family, major, minor, later = gnu.groups()
        suffix = "or-later" if later in ("+", "-or-later") else "only"
        return f"{_GNU[family]}-{major}.{minor or '0'}-{suffix}"
    return _NAMES.get(low, "")


_SPLIT = re.compile(
    r",?\s+(?:and/or|and|or|with)\s+|,\s*(?:and\s+|or\s+)?|[()]|\s*\|\s*|\s+&\s+", re.IGNORECASE
)


def parts(expression: str) -> list[str]:
    """The licences that an expression names, without saying how they go together."""
    words = (piece.strip() for piece in _SPLIT.split(expression))
    return [identifier(word) or word for word in words if word and len(word) <= 80]


KNOWN = frozenset(_NAMES.values()) | frozenset(
    f"{family}-{version}-{suffix}"
    for family, versions in (
        ("GPL", ("1.0", "2.0", "3.0")),
        ("LGPL", ("2.0", "2.1", "3.0")),
        ("AGPL", ("3.0",)),
        ("GFDL", ("1.1", "1.2", "1.3")),
    )
    for version in versions
    for suffix in ("only", "or-later")
)
"""The identifiers of SPDX's list that `identifier` gives, and no others."""
