"""What all have in common that hold something until they are closed."""

from __future__ import annotations

from types import TracebackType
from typing import Self

CLOSING = "publisher.closing"
"""The key, in the environment of a WSGI request, of the threading.Event that is set when
the server closes: an answer that waits is to end with it."""


class Closing:
    """A context that ends with `close`."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
