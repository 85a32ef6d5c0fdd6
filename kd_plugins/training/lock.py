"""One run of a name at a time: two would archive and overwrite each other's files."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from os import path as osp
from typing import IO

from kd_plugins import distributed
from kd_plugins.options import OptionError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def only_run(folder: str) -> Iterator[None]:
    """Lock a run's folder for as long as the run lasts; the kernel releases the lock when the process ends, however it ends.

    Args:
        folder: of the run; it need not exist. The lock is a file beside it, since the folder itself may be renamed.

    Raises:
        OptionError: another run holds it, on this machine or on another one that shares the folder; or it cannot be written.
    """
    path = osp.join(osp.dirname(folder), f".{osp.basename(folder)}.lock")
    file, refusal = None, ""
    if distributed.rank() == 0:
        try:
            file = _take(path)
        except _Held as held:
            refusal = f"{folder} belongs to a run that has not ended ({held}); expected another `name`, or to wait for it"
        except OSError as error:
            refusal = f"cannot write {path}: {error.strerror or error}"
    if refusal := distributed.broadcast_object(refusal):
        raise OptionError(refusal)
    try:
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)
                os.rmdir(osp.dirname(path))  # where nothing else has been written
            file.close()


class _Held(Exception):
    """Another process has the lock; the message says which."""


def _take(path: str) -> IO[str]:
    while True:
        os.makedirs(osp.dirname(path), exist_ok=True)
        try:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        except FileNotFoundError:  # a run that ended has removed the folder
            continue
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by workers of a data loader that outlive the run
        except (BlockingIOError, PermissionError):
            file.seek(0)
            held = file.read(200).strip()
            file.close()
            raise _Held(held or "its lock names no process") from None
        except OSError:  # a file system without locks
            pass
        if osp.exists(path) and osp.samestat(os.fstat(file.fileno()), os.stat(path)):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            file.flush()
            return file
        file.close()  # that of a run that ended in this moment
