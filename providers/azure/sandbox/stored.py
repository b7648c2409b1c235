"""What all kinds of resources share that the state holds."""

from __future__ import annotations

from providers.azure.sandbox.operations import Operations
from providers.azure.sandbox.schema import Types
from providers.azure.sandbox.store import Entry, State
from providers.azure.sandbox.web import Refused


class Stored:
    """Resources whose requests are of one slice of the type files."""

    def __init__(self, state: State, operations: Operations, types: str) -> None:
        self._state = state
        self._operations = operations
        self._types = Types(types)

    @property
    def version(self) -> str:
        return self._types.version

    def entry(self, id_: str) -> Entry:
        found = self._state.get(id_)
        if found is None:
            named = self._named(id_)
            raise Refused(404, "ResourceNotFound", f"The Resource '{named}' was not found.")
        return found

    def _named(self, id_: str) -> str:
        """As Azure names one that is not there."""
        return id_
