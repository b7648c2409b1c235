"""Names of files as disk files hold them."""

from __future__ import annotations

MOST = 1024
UNNAMED = "a file that it does not name"


def name(raw: bytes, encoding: str = "utf-8") -> str:
    return raw.decode(encoding, "replace").partition("\0")[0][:MOST] or UNNAMED
