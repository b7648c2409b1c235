"""Session tokens of IMDSv2."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

TTL_MOST = 21_600
"""Seconds: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html"""
_KEPT = 1_000


class Tokens:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[str, float] = {}

    def issue(self, ttl: str | None) -> tuple[str, int] | None:
        """A new token and its seconds; None where `ttl` is missing or out of bounds."""
        if ttl is None or not ttl.isascii() or not ttl.isdigit() or len(ttl) > 5:
            return None
        seconds = int(ttl)
        if not 1 <= seconds <= TTL_MOST:
            return None
        token = secrets.token_urlsafe(42)
        now = self._clock()
        with self._lock:
            alive = {known: end for known, end in self._ends.items() if end > now}
            self._ends = dict([*alive.items(), (token, now + seconds)][-_KEPT:])
        return token, seconds

    def left(self, token: str) -> int:
        """Seconds that the token is still good for; 0 for one that is not."""
        with self._lock:
            end = self._ends.get(token, 0.0)
        return max(0, -int(-(end - self._clock()) // 1))
