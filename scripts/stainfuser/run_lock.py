"""Tell a run that is alive from the lock that a killed one left behind."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import IO


def hold_run_lock(snakemake_dir: Path) -> IO[str] | None:
    """Hold this working directory for the life of the process; clear a dead run's Snakemake lock.

    Snakemake's own lock is a file that outlives a killed process, after which every command asks
    for ``--unlock``. A kernel lock beside it dies with its process: whoever gets it knows that no
    other run is alive here and may remove what a dead one left.

    Returns
    -------
    The open lock file, to be kept; None when another run holds it or the file system has no locks:
    then Snakemake's own lock decides.
    """
    snakemake_dir.mkdir(exist_ok=True)
    handle = open(snakemake_dir / "stainfuser.lock", "w")  # noqa: SIM115 - kept open on purpose
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    shutil.rmtree(snakemake_dir / "locks", ignore_errors=True)
    return handle
