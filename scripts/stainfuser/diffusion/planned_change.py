"""A change that is still being planned while the glass of the slide is already written."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.changes import Change, Piece
from stainfuser.io.slide_layout import Block


class PlannedChange:
    """Plans a change in a thread of its own; the first tissue waits for it.

    Loading a network and showing it the sampled tiles takes seconds of one core. Pixels without
    tissue need none of it.

    Parameters
    ----------
    plan
        Returns the change; None: tissue stays as it is. What it raises is raised by `prepare`.
    ahead
        Plan at once; False: when the change is first asked for, in the thread that asks.
    """

    def __init__(self, plan: Callable[[], Change | None], *, ahead: bool) -> None:
        self._plan = plan
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._future: Future[Change | None] | None = self._pool and self._pool.submit(plan)

    @cached_property
    def change(self) -> Change | None:
        """The change, once it is planned."""
        return self._plan() if self._future is None else self._future.result()

    def prepare(self, block: Block) -> None:
        """Wait for the plan, then do what the pieces of a block share."""
        if self.change is not None:
            self.change.prepare(block)

    def apply(self, piece: Piece, rgbx: NDArray[np.uint8], weight: NDArray[np.uint8]) -> None:
        """Change the pixels of a piece in place."""
        if self.change is not None:
            self.change.apply(piece, rgbx, weight)

    def close(self) -> None:
        """End the thread; it is waited for."""
        if self._pool is not None:
            self._pool.shutdown()
