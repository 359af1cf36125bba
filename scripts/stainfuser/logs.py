"""Log file and progress of one rule; errors end as one sentence, not as a traceback."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from stainfuser.errors import SlideError, StainFuserError
from stainfuser.files import write_json
from stainfuser.privacy import redact

Item = TypeVar("Item")
LOGGER = logging.getLogger("stainfuser")


class _SharableFormatter(logging.Formatter):
    """Lines of a log that ships: no path of this machine in them."""

    def __init__(self, folders: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self.folders = list(folders)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with paths reduced to what they say of the run."""
        return redact(super().format(record), self.folders)


@contextlib.contextmanager
def logged(
    log_path: str | Path,
    failure_path: str | Path | None = None,
    private_folders: Iterable[str] = (),
) -> Iterator[None]:
    """Send this package's log messages to `log_path` and to stderr while a stage runs.

    A `SlideError` is also written to `failure_path`, where the next run finds it and leaves the
    slide out instead of failing on it again. Both are kept with the results and may be passed on:
    paths of this machine (`private_folders` are those that the user gave) are reduced to names in
    them. Entry scripts use `stainfuser.recording.recorded`, which calls this.

    A `StainFuserError` is printed as its one sentence and ends the process with status 1; any
    other error is a defect of ours: its traceback goes to the log file, and stderr names the file.
    """
    log_path = Path(log_path)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    file_handler = logging.FileHandler(log_path, mode="w", encoding="utf-8")
    private_folders = list(private_folders)
    file_handler.setFormatter(_SharableFormatter(private_folders))
    screen_handler = logging.StreamHandler(sys.stderr)
    screen_handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.setLevel(logging.INFO)
    LOGGER.handlers[:] = [file_handler, screen_handler]
    try:
        yield
    except StainFuserError as error:
        LOGGER.error("%s", error)
        if failure_path is not None and isinstance(error, SlideError):
            record = {"verdict": error.verdict, "reason": error.wrong, "remedy": error.remedy}
            write_json(
                failure_path, {key: redact(text, private_folders) for key, text in record.items()}
            )
        raise SystemExit(1) from None
    except Exception as error:
        with open(log_path, "a", encoding="utf-8") as handle:
            handle.write(redact(traceback.format_exc(), private_folders))
        kind = type(error).__name__
        print(f"Unexpected {kind}: {error}; the traceback is in {log_path}.", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        LOGGER.handlers[:] = []
        file_handler.close()


def progress(
    items: Iterable[Item], what: str, total: int | None = None, **bar: Any
) -> Iterator[Item]:
    """Iterate with a progress bar on a terminal and a quiet line every 30 s elsewhere."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 30.0
    yield from tqdm(items, desc=what, total=total, mininterval=interval, file=sys.stderr, **bar)
