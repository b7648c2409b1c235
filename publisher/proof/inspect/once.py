"""Remember what a method found out, failures too: a disk that costs much to find
unreadable is not read again by the next rule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from publisher.proof.inspect.budget import Damaged, Unreadable

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S")


def once(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """The method, run once for each object and arguments (which are hashable)."""
    name = f"_once_{method.__name__}"

    @functools.wraps(method)
    def remembered(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        known: dict[Any, T | Unreadable] = self.__dict__.setdefault(name, {})
        if args not in known:
            try:
                known[args] = method(self, *args, **kwargs)
            except Unreadable as error:
                known[args] = error
            except MemoryError:
                known[args] = Damaged("reading it takes more memory than there is")
        value = known[args]
        if isinstance(value, Unreadable):
            # its frames hold what was read until then
            value.__context__ = value.__cause__ = None
            raise value.with_traceback(None)
        return value

    return cast("Callable[Concatenate[S, P], T]", remembered)
