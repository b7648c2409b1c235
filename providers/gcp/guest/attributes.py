"""Guest attributes: what the guest may write into its metadata.

https://cloud.google.com/compute/docs/metadata/manage-guest-attributes
"""

from __future__ import annotations

import re
import threading

KEY_MOST = 256
NAMESPACE_MOST = 128
VALUE_MOST = 256 * 1024
TOTAL_MOST = 256 * 1024
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")


class GuestAttributes:
    """Values by namespace and key; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, str]] = {}

    def write(self, namespace: str, key: str, value: str) -> str:
        """What is wrong with it, or nothing when it is kept."""
        if len(namespace) > NAMESPACE_MOST or not _NAME.fullmatch(namespace):
            return "Invalid namespace."
        if len(key) > KEY_MOST or not _NAME.fullmatch(key):
            return "Invalid key."
        with self._lock:
            others = {
                (space, name): held
                for space, names in self._values.items()
                for name, held in names.items()
                if (space, name) != (namespace, key)
            }
            if len(value) > VALUE_MOST or sum(map(len, others.values())) + len(value) > TOTAL_MOST:
                return "Value is too large."
            self._values.setdefault(namespace, {})[key] = value
        return ""

    def delete(self, namespace: str, key: str) -> None:
        with self._lock:
            self._values.get(namespace, {}).pop(key, None)

    def values(self) -> dict[str, dict[str, str]]:
        with self._lock:
            return {space: dict(names) for space, names in self._values.items() if names}
