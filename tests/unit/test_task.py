"""Memory, ledgers, retry, polling, bounded parallelism and cancellation."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher import events
from publisher.conformance import HastyClock
from publisher.errors import Cancelled, HostError, ProviderError
from publisher.memory import Memory, read_lines
from publisher.task import Cancellation, Retry, Task


@pytest.fixture
def seen() -> list[events.Event]:
    return []


@pytest.fixture
def task(tmp_path: Path, seen: list[events.Event]) -> Task:
    return Task("aws.upload", Memory(tmp_path / "m"), sink=seen.append, clock=HastyClock(0.001))


def test_memory_outlives_its_process(tmp_path: Path) -> None:
    first = Memory(tmp_path)
    first.set("snapshot", "snap-1")
    first.set("snapshot", "snap-2")
    first.ledger("blocks").add("0 abc")
    second = Memory(tmp_path)
    assert second.get("snapshot") == "snap-2"
    assert second.ledger("blocks").entries() == ["0 abc"]
    second.forget("snapshot")
    assert Memory(tmp_path).get("snapshot") is None


def test_a_torn_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.ledger("blocks").add("0 abc")
    memory.ledger("blocks").add("1 def")
    memory.close()
    file = tmp_path / "blocks.ledger"
    file.write_bytes(file.read_bytes()[:-3])
    again = Memory(tmp_path)
    assert again.ledger("blocks").entries() == ["0 abc"]
    again.ledger("blocks").add("2 ghi")
    assert again.ledger("blocks").entries() == ["0 abc", "2 ghi"]


def test_a_line_that_a_full_disk_cut_short_does_not_hide_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Memory(tmp_path).ledger("blocks")
    ledger.add("0 abc")
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr("publisher.memory.os.write", lambda fd, data: write(fd, data[:7]))
        with pytest.raises(HostError, match="written in part"):
            ledger.add("1 def")
    ledger.add("2 ghi")
    ledger.close()
    assert Memory(tmp_path).ledger("blocks").entries() == ["0 abc", "2 ghi"]


def test_a_damaged_line_ends_what_is_believed(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for number in range(3):
        memory.ledger("blocks").add(f"{number} digest")
    memory.close()
    file = tmp_path / "blocks.ledger"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert list(read_lines(file)) == ["0 digest"]


def test_only_transient_errors_are_tried_again(task: Task, seen: list[events.Event]) -> None:
    calls: list[int] = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) < 4:
            raise ProviderError("busy", transient=True)
        return "ok"

    assert task.retry(flaky) == "ok"
    retries = [event for event in seen if isinstance(event, events.StepRetry)]
    assert [event.attempt for event in retries] == [1, 2, 3]

    def refused() -> str:
        calls.append(1)
        raise ProviderError("no", transient=False)

    calls.clear()
    with pytest.raises(ProviderError, match="no"):
        task.retry(refused)
    assert len(calls) == 1


def test_retrying_gives_up_with_the_clouds_own_error(tmp_path: Path) -> None:
    task = Task("x", Memory(tmp_path), clock=HastyClock(0), retry=Retry(attempts=3))
    calls: list[int] = []

    def busy() -> None:
        calls.append(1)
        raise ProviderError("still busy", transient=True)

    with pytest.raises(ProviderError, match="still busy"):
        task.retry(busy)
    assert len(calls) == 3


def test_the_delay_is_what_the_cloud_asked_for(task: Task, seen: list[events.Event]) -> None:
    answers = iter([ProviderError("slow down", transient=True, retry_after=17.0), None])

    def call() -> None:
        error = next(answers)
        if error:
            raise error

    task.retry(call)
    (retry,) = [event for event in seen if isinstance(event, events.StepRetry)]
    assert retry.delay == 17.0


def test_polling_ends_with_an_error_that_the_next_run_may_cure(task: Task) -> None:
    with pytest.raises(ProviderError, match="timed out after 60 s: waiting") as caught:
        task.poll(lambda: None, interval=15, timeout=60, what="waiting")
    assert "run the same command again" in caught.value.hint


def test_map_works_in_parallel_and_draws_little_ahead(task: Task) -> None:
    drawn: list[int] = []
    done: list[int] = []
    together = threading.Barrier(3, timeout=5)

    def items() -> Iterator[int]:
        for number in range(60):
            drawn.append(number)
            assert len(drawn) - len(done) <= 7
            yield number

    def work(number: int) -> int:
        if number < 3:
            together.wait()
        return number * 2

    for result in task.map(work, items(), workers=3):
        done += [result]
    assert sorted(done) == [2 * n for n in range(60)]


def test_the_first_error_in_map_stops_the_rest(task: Task) -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        if number == 2:
            raise ProviderError("block 2 refused")
        time.sleep(0.005)

    with pytest.raises(ProviderError, match="block 2"):
        list(task.map(work, range(1000), workers=2))
    assert len(started) < 20


def test_an_error_in_map_wakes_a_sibling_that_waits_to_try_again(tmp_path: Path) -> None:
    task = Task("x", Memory(tmp_path))
    waiting = threading.Event()

    def busy() -> None:
        waiting.set()
        raise ProviderError("busy", transient=True, retry_after=60)

    def work(number: int) -> None:
        if number == 0:
            task.retry(busy)
        assert waiting.wait(10)
        raise ProviderError("refused")

    started = time.monotonic()
    with pytest.raises(ProviderError, match="refused"):
        list(task.map(work, range(2), workers=2))
    assert time.monotonic() - started < 10
    task.check()


def test_an_error_of_what_map_draws_from_is_raised_and_nothing_hangs(tmp_path: Path) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise HostError("cannot read the disk")

    before = threading.active_count()
    with pytest.raises(HostError, match="cannot read"):
        list(Task("x", Memory(tmp_path)).map(lambda n: n, items(), workers=2))
    assert threading.active_count() == before


def test_a_cancellation_wakes_sleepers_and_stops_map(tmp_path: Path) -> None:
    cancellation = Cancellation()
    task = Task("x", Memory(tmp_path), cancellation=cancellation)
    threading.Timer(0.1, cancellation.cancel).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        task.sleep(60)
    with pytest.raises(Cancelled):
        task.retry(lambda: None)
    with pytest.raises(Cancelled):
        list(task.map(lambda n: n, range(10), workers=2))
    assert time.monotonic() - started < 5


def test_progress_is_thinned_but_the_last_one_always_comes(
    task: Task, seen: list[events.Event]
) -> None:
    for done in range(1, 1001):
        task.progress(done, 1000)
    reports = [event for event in seen if isinstance(event, events.StepProgress)]
    assert reports[-1].done == 1000
    assert len(reports) < 50
