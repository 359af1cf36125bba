"""Work that goes on in a process of its own from the start of a job, and is asked for later."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def can_fork() -> bool:
    """Tell whether this process may be forked: on Linux, before it has threads or loads torch.

    A lock that another thread holds, and the threads of torch, would be missing in the child.
    """
    return sys.platform == "linux" and threading.active_count() == 1 and "torch" not in sys.modules


class ForkedCall:
    """Calls a function in a child process, which shares this one's memory until it is written to.

    Threads of one process take turns at Python code: importing a library in one of them holds up
    the others, and another process does not.

    Parameters
    ----------
    function
        What it returns has to be picklable. What it raises is told to nobody: a caller that gets
        nothing calls the function itself and sees why.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._child = context.Process(
            target=_call, args=(function, self._receiver, sender), daemon=True
        )
        self._child.start()
        sender.close()

    def result(self) -> Any | None:
        """Wait for what the function returns; None if it failed, or if its process was killed."""
        try:
            return self._receiver.recv()
        except (EOFError, OSError):
            return None
        finally:
            self.close()

    def close(self) -> None:
        """End the child, whether or not it is done."""
        self._receiver.close()
        if self._child.is_alive():
            self._child.terminate()
        self._child.join()


def _call(function: Callable[[], Any], receiver: Connection, sender: Connection) -> None:
    receiver.close()  # a parent that was killed is noticed when the result is sent
    gc.disable()  # the process is short-lived, and looking for garbage slows down imports
    # Of an interrupt, too, the parent's traceback is enough.
    with contextlib.suppress(BaseException):
        sender.send(function())
