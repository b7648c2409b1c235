"""Where a file is: a path, or a URL that is shown without what may be secret in it."""

from __future__ import annotations

import base64
import netrc
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from publisher.errors import BuildError


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https address. `credentials` ("user:password") are not part of `text`."""

    text: str
    credentials: str = ""

    @classmethod
    def parse(cls, text: str) -> Url:
        parts = urlsplit(text)
        userinfo, _, host = parts.netloc.rpartition("@")
        plain = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        return cls(plain, unquote(userinfo))

    @property
    def origin(self) -> tuple[str, str]:
        parts = urlsplit(self.text)
        return parts.scheme, parts.netloc

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(unquote(urlsplit(self.text).path)).name

    def __str__(self) -> str:
        """For people: a query may hold a signature or a token, so it is left out."""
        parts = urlsplit(self.text)
        return urlunsplit((*parts[:3], "", "")) + ("?…" if parts.query else "")

    def authorization(self) -> str:
        """The Authorization header's value: from the URL, or from the user's netrc(5)."""
        pair = self.credentials or _netrc(urlsplit(self.text).hostname or "")
        return f"Basic {base64.b64encode(pair.encode()).decode()}" if pair else ""


def _netrc(host: str) -> str:
    path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        found = netrc.netrc(path).hosts.get(host)
    except (OSError, netrc.NetrcParseError):
        return ""
    return f"{found[0]}:{found[2]}" if found else ""


def locate(text: str, directory: Path, key: str = "") -> Path | Url:
    """A location as a pipeline has it; paths are relative to `directory`.

    Raises BuildError for a scheme that is not supported."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return directory / text
    match scheme.lower():
        case "http" | "https":
            return Url.parse(text)
        case "file":
            host, _, path = rest.partition("/")
            if host in ("", "localhost"):
                return Path(unquote(f"/{path}"))
    raise BuildError(
        f"{scheme}:// can't be fetched", key=key, hint="use https://, http://, file:/// or a path"
    )
