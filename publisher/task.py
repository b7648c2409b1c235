"""What running code is handed: progress, memory that survives a crash,
cancellation, a clock, retry and bounded parallelism."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal, TypeVar

import tenacity

from publisher import events
from publisher.errors import Cancelled, ProviderError
from publisher.memory import Ledger, Memory
from publisher.model import Finding

__all__ = ["Cancellation", "Clock", "Ledger", "Memory", "Retry", "Task", "detached"]

T = TypeVar("T")
S = TypeVar("S")


class Cancellation:
    """Set once by a signal or by a failing sibling; everything that waits wakes up."""

    def __init__(self, parent: Cancellation | None = None) -> None:
        self._event = threading.Event()
        self._children: list[Cancellation] = []
        self._lock = threading.Lock()
        if parent is not None:
            parent._adopt(self)

    def _adopt(self, child: Cancellation) -> None:
        with self._lock:
            self._children.append(child)
            if self._event.is_set():
                child.cancel()

    def cancel(self) -> None:
        self._event.set()
        with self._lock:
            for child in self._children:
                child.cancel()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise Cancelled if the run was cancelled. Call it between requests."""
        if self._event.is_set():
            raise Cancelled()

    def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; True when cancelled meanwhile."""
        return self._event.wait(seconds)


class Clock:
    """Time as a seam: tests hand in one that does not wait."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, cancellation: Cancellation) -> None:
        """Sleep; raise Cancelled as soon as the run is cancelled."""
        cancellation.wait(seconds)
        cancellation.check()


class Retry:
    """The one retry policy: exponential with jitter, driven by ProviderError.transient.

    `attempts` includes the first; delays are `base` · 2ⁿ up to `ceiling`
    seconds, or what the cloud asked for in Retry-After, up to `patience`.
    """

    def __init__(
        self, attempts: int = 8, base: float = 0.5, ceiling: float = 30.0, patience: float = 300.0
    ) -> None:
        self.attempts = attempts
        self.base = base
        self.ceiling = ceiling
        self.patience = patience
        self._backoff = tenacity.wait_random_exponential(multiplier=base, max=ceiling)

    def delay(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, ProviderError) else None
        if asked is not None:
            return min(asked, self.patience)
        return self._backoff(state)


class Task:
    """The handle on one running step; all of its methods are thread-safe."""

    def __init__(
        self,
        step: str,
        memory: Memory,
        *,
        lane: str = "",
        sink: events.Sink = events.discard,
        cancellation: Cancellation | None = None,
        clock: Clock | None = None,
        retry: Retry | None = None,
        run: str = "",
    ) -> None:
        self.step = step
        self.lane = lane or step.partition(".")[0]
        self.memory = memory
        self.cancellation = cancellation or Cancellation()
        self.clock = clock or Clock()
        self.run = run
        self._sink = sink
        self._retry = retry or Retry()
        self._last_progress = 0.0
        self._progress_lock = threading.Lock()
        self._within = threading.local()

    # -- telling

    def phase(self, text: str) -> None:
        """Say what happens now, such as "waiting for the snapshot"."""
        self._sink(events.StepPhase(self.step, self.lane, text))

    def progress(
        self, done: int, total: int = 0, unit: Literal["bytes", "items"] = "bytes"
    ) -> None:
        """Report progress; at most ten a second are passed on, the last one always."""
        now = self.clock.monotonic()
        with self._progress_lock:
            if done != total and now - self._last_progress < 0.1:
                return
            self._last_progress = now
        self._sink(events.StepProgress(self.step, self.lane, done, total, unit))

    def output(self, line: str) -> None:
        """Pass on a line that a tool or the guest printed."""
        self._sink(events.StepOutput(self.step, self.lane, line))

    def finding(self, finding: Finding) -> None:
        self._sink(events.StepFinding(self.step, self.lane, finding))

    def note(self, text: str, level: events.Level = "info") -> None:
        self._sink(events.Note(level, text))

    # -- stopping and waiting

    def check(self) -> None:
        """Raise Cancelled if the run was cancelled. Call it between requests."""
        self._stop().check()

    def sleep(self, seconds: float) -> None:
        """Sleep; raise Cancelled as soon as the run is cancelled."""
        self.clock.sleep(seconds, self._stop())

    def _stop(self) -> Cancellation:
        """What stops this thread: within `map`, also an error of a sibling."""
        within: Cancellation | None = getattr(self._within, "stop", None)
        return within or self.cancellation

    def poll(
        self,
        probe: Callable[[], T | None],
        *,
        interval: float,
        timeout: float,
        what: str,
        provider: str = "",
    ) -> T:
        """Call `probe` (retried) until it returns something other than None.

        `interval` seconds between calls, `timeout` seconds in all; afterwards a
        ProviderError that the next run may cure, because the cloud goes on.
        """
        self.phase(what)
        deadline = self.clock.monotonic() + timeout
        while True:
            found = self.retry(probe)
            if found is not None:
                return found
            if self.clock.monotonic() >= deadline:
                raise ProviderError(
                    f"timed out after {timeout:.0f} s: {what}",
                    provider=provider,
                    hint="the cloud may still finish: run the same command again to continue",
                )
            self.sleep(interval)

    def retry(self, call: Callable[[], T]) -> T:
        """Call until it succeeds, as the retry policy says. `call` must be idempotent."""

        def announce(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            delay = state.next_action.sleep if state.next_action else 0.0
            self._sink(
                events.StepRetry(self.step, self.lane, str(error), state.attempt_number, delay)
            )

        def curable(error: BaseException) -> bool:
            return isinstance(error, ProviderError) and error.transient

        policy = tenacity.Retrying(
            retry=tenacity.retry_if_exception(curable),
            stop=tenacity.stop_after_attempt(self._retry.attempts),
            wait=self._retry.delay,
            sleep=self.sleep,
            before_sleep=announce,
            reraise=True,
        )

        def attempt() -> T:
            self.check()
            return call()

        return policy(attempt)

    def map(self, work: Callable[[S], T], items: Iterable[S], *, workers: int) -> Iterator[T]:
        """`work` on all items with `workers` threads, results in order of completion.

        At most 2 · workers items are drawn ahead, so `items` may be a generator
        that reads a disk. The first error stops the rest and is raised.
        """
        stop = Cancellation(self._stop())

        def guarded(item: S) -> T:
            self._within.stop = stop
            stop.check()
            return work(item)

        with ThreadPoolExecutor(workers, thread_name_prefix=self.step) as pool:
            pending: set[Future[T]] = set()
            source = iter(items)
            try:
                for item in itertools.islice(source, 2 * workers):
                    pending.add(pool.submit(guarded, item))
                while pending:
                    finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    self.check()
                    for future in finished:
                        yield future.result()
                    for item in itertools.islice(source, 2 * workers - len(pending)):
                        pending.add(pool.submit(guarded, item))
            except BaseException:
                stop.cancel()
                for future in pending:
                    future.cancel()
                raise


def detached(directory: Path, step: str = "task", **options: object) -> Task:
    """A task outside a run, as tests and single commands use it."""
    return Task(step, Memory(directory), **options)  # type: ignore[arg-type]
