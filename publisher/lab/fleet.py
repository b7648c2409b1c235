"""Several machines at once, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from publisher.build.checkpoints import Checkpoint
from publisher.closing import Closing
from publisher.errors import Cancelled
from publisher.lab import running
from publisher.lab.control import Control
from publisher.lab.image import Image
from publisher.lab.machine import LabMachine
from publisher.lab.snapshots import Settings, Snapshots
from publisher.task import Task
from publisher.vm.accelerator import Accelerator

_POLL = 0.1


@dataclass
class _Place:
    """One machine's thread and what became of it."""

    name: str
    task: Task
    machine: LabMachine | None = None
    control: Control | None = None
    ready: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    thread: threading.Thread | None = None


class Fleet(Closing):
    """A context around machines of one image; leaving it ends them."""

    def __init__(
        self,
        labs: Path,
        snapshots: Snapshots,
        image: Image,
        settings: Settings,
        chosen: Accelerator,
        source: Checkpoint | None,
    ) -> None:
        """`source`: a snapshot to wake up from; None boots the image."""
        self._labs = labs
        self._snapshots = snapshots
        self._image = image
        self._settings = settings
        self._chosen = chosen
        self._source = source
        self._places: list[_Place] = []
        self._ending = threading.Event()

    def close(self) -> None:
        self._ending.set()
        for place in self._places:
            if place.thread is not None:
                place.thread.join()

    def start(self, name: str, task: Task) -> None:
        """Returns at once; `wait_ready` tells what became of it."""
        place = _Place(name, task)
        place.thread = threading.Thread(target=self._own, args=(place,), name=name)
        self._places.append(place)
        place.thread.start()

    def wait_ready(self, done: Callable[[str], None]) -> Sequence[LabMachine]:
        """All machines, once they are up; `done` is called with each one's name. Raises
        the first error of any."""
        waiting = list(self._places)
        while waiting:
            for place in list(waiting):
                self._raise(place)
                if place.ready.wait(_POLL):
                    self._raise(place)
                    waiting.remove(place)
                    done(place.name)
        return [place.machine for place in self._places if place.machine is not None]

    def alive(self) -> bool:
        """False once all have ended. Raises what ended one of them otherwise."""
        for place in self._places:
            self._raise(place)
        return any(place.thread is not None and place.thread.is_alive() for place in self._places)

    @staticmethod
    def _raise(place: _Place) -> None:
        if place.error is not None:
            raise place.error

    def _own(self, place: _Place) -> None:
        try:
            with ExitStack() as stack:
                directory = stack.enter_context(running.claim(self._labs, place.name))
                machine = stack.enter_context(
                    LabMachine(
                        place.name,
                        directory,
                        self._snapshots,
                        self._image,
                        self._settings,
                        self._chosen,
                        place.task,
                    )
                )
                if self._source is None:
                    machine.boot()
                else:
                    machine.wake(self._source)
                place.machine = machine
                control = stack.enter_context(Control(machine))
                place.ready.set()
                while not (self._ending.is_set() or control.stop):
                    control.serve_one(_POLL)
                    if not machine.check():
                        return
        except Cancelled as error:
            if not place.ready.is_set():
                place.error = error
        except BaseException as error:  # raised again in the thread that asks `alive`
            place.error = error
        finally:
            place.ready.set()
