"""A Slurm of one node on this machine, from Debian's packages: install, start, stop, status.

For tests, and for a look at how the workflow behaves on a cluster. It needs root; it needs no
systemd, no cgroups and no accounting database. All its files lie in one folder, to which two links
in /etc/slurm point while it runs; where a Slurm is configured already it refuses. Two pretend GPUs
can be scheduled, not computed on. A job that takes more memory than it asked for is killed, as on a
real cluster.

    python tests/slurm/one_node_slurm.py start
    python tests/slurm/one_node_slurm.py stop
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
FOLDER = Path("/tmp/stainfuser-slurm")
# Where Debian's Slurm looks; an environment variable would be lost on the way to `srun` in a job.
SYSTEM_FOLDER = Path("/etc/slurm")
LINKED = ("slurm.conf", "gres.conf")
GPUS = ("/dev/zero", "/dev/full")
# Pretended, so that what rules ask for can be scheduled on a small machine.
MEMORY_MB = 64000
SBIN = "/usr/sbin:/sbin"

CONFIGURATION = """\
ClusterName=lab
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill,UsePss
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=1,sched_min_interval=200000
MinJobAge=3600
KillWait=5
GresTypes=gpu
AccountingStorageType=accounting_storage/none
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={node} Default=YES MaxTime=UNLIMITED State=UP
PartitionName=gpu Nodes={node} MaxTime=UNLIMITED State=UP
"""


def environment() -> dict[str, str]:
    """Return the environment in which Slurm's commands and daemons are found."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SBIN}"}


def missing() -> list[str]:
    """Return the programs that are not installed."""
    path = environment()["PATH"]
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def install() -> None:
    """Install Debian's packages if they are missing; raise `RuntimeError` if that cannot be."""
    if not missing():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"{', '.join(missing())} missing, and only root on Debian can install")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wanted = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
    for command in (["apt-get", "update", "-q"], wanted):
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode != 0 or missing():
        raise RuntimeError(f"apt-get could not install {PACKAGES}: {done.stderr.strip()[-300:]}")


def start(folder: Path = FOLDER) -> None:
    """Start the three daemons and wait until the node takes jobs; what runs already is kept."""
    if os.geteuid() != 0:
        raise RuntimeError("a Slurm of one node needs root")
    install()
    if is_up(folder):
        return
    stop(folder)
    if any((SYSTEM_FOLDER / name).exists() for name in LINKED):
        raise RuntimeError(f"{SYSTEM_FOLDER} has a configuration: this machine has its own Slurm")
    try:
        _start_daemons(folder)
    except RuntimeError:
        stop(folder)
        raise


def stop(folder: Path = FOLDER) -> None:
    """Cancel all jobs, end the daemons by their pid files and remove the folder."""
    if is_up(folder):
        subprocess.run(["scancel", "--user", "root"], env=environment(), check=False)
        time.sleep(1)
    for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
        _end(folder / name)
    if _is_linked(folder):
        for name in LINKED:
            (SYSTEM_FOLDER / name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def is_up(folder: Path = FOLDER) -> bool:
    """Tell whether the node is idle or works."""
    if missing() or not _is_linked(folder):
        return False
    asked = ["sinfo", "-h", "-p", "cpu", "-o", "%T"]
    found = subprocess.run(asked, env=environment(), capture_output=True, text=True, check=False)
    return found.stdout.strip() in ("idle", "mixed", "allocated")


_MUNGE_FILES = {
    "key-file": "key",
    "socket": "socket",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _node() -> str:
    return socket.gethostname().split(".")[0]


def _is_linked(folder: Path) -> bool:
    """Tell whether the machine's configuration is the one of this folder."""
    link = SYSTEM_FOLDER / LINKED[0]
    return link.is_symlink() and link.readlink() == folder.resolve() / "slurm.conf"


def _start_daemons(folder: Path) -> None:
    _prepare(folder)
    munge = folder / "munge"
    options = [f"--{key}={munge / name}" for key, name in _MUNGE_FILES.items()]
    _run(["runuser", "-u", "munge", "--", "munged", *options])
    _run(["slurmctld", "-c"])
    _run(["slurmd", "-N", _node()])
    deadline = time.monotonic() + 30
    while not is_up(folder):
        if time.monotonic() > deadline:
            log = (folder / "slurmctld.log").read_text(errors="replace")
            raise RuntimeError(f"Slurm did not come up:\n{log[-2000:]}")
        time.sleep(0.2)


def _prepare(folder: Path) -> None:
    """Write configuration and key; munge asks that nobody else can write where its files lie."""
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    (folder / "munge").chmod(0o755)
    for path in (folder / "munge", key):
        shutil.chown(path, "munge", "munge")
    controller_port, daemon_port = _free_ports(2)
    values = {"node": _node(), "folder": folder, "memory_mb": MEMORY_MB, "gpus": len(GPUS)}
    values.update(controller_port=controller_port, daemon_port=daemon_port)
    cpus = min(max(os.cpu_count() or 1, 2), 4)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(cpus=cpus, **values))
    gres = "".join(f"Name=gpu File={device}\n" for device in GPUS)
    (folder / "gres.conf").write_text(f"AutoDetect=off\n{gres}")
    SYSTEM_FOLDER.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        (SYSTEM_FOLDER / name).unlink(missing_ok=True)  # points to what is no more
        (SYSTEM_FOLDER / name).symlink_to(folder.resolve() / name)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} did not start: {(done.stderr or done.stdout).strip()}")


def _end(pid_file: Path) -> None:
    """End the process of a pid file and wait for it, at most 10 s."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("install", "start", "stop", "status"))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where its files lie")
    asked = parser.parse_args()
    try:
        if asked.what == "install":
            install()
        elif asked.what == "stop":
            stop(asked.folder)
        elif asked.what == "start":
            start(asked.folder)
            print("up; its partitions are cpu and gpu")
    except RuntimeError as error:
        sys.exit(f"Error: {error}")
    if asked.what == "status":
        print("up" if is_up(asked.folder) else "down")


if __name__ == "__main__":
    main()
