"""The folder of the sockets over which a worker hands tensors over.

Uses: `multiprocessing.process.BaseProcess._config`, where Python keeps the folder's name and hands it on to the
processes that one starts. There from Python 3.10, the lowest that the package runs on, to 3.14.

Without: the folder of a worker whose parent was killed stays behind, empty but for its socket.
"""

from __future__ import annotations

import multiprocessing
import shutil
from multiprocessing.util import get_temp_dir


class OwnTempFolder:
    """Made early in a process: then only what it inherited has a name."""

    def __init__(self) -> None:
        config = getattr(multiprocessing.current_process(), "_config", None)
        self._known = config is not None
        self._inherited = config.get("tempdir") if config is not None else None

    def remove(self) -> None:
        """Remove this process's folder, and not one that it shares with those before it."""
        if not self._known:
            return
        folder = get_temp_dir()
        if folder != self._inherited:
            shutil.rmtree(folder, ignore_errors=True)
