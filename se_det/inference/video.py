"""Videos frame by frame: none is held longer than it is looked at."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..errors import CheckpointError, DataError
from ..files import open_temporary

USUAL_RATE = 25.0  # frames a second, for a file that does not say
RATES = (0.01, 1000.0)  # what a file may say and MPEG-4 has
MAX_PIXELS = 8190  # px of a side of MPEG-4 that is even


class VideoReader:
    """The frames of a video file, BGR and upright, in their order; a context manager.

    Attributes:
        rate: frames a second.
        declared: how many frames the file says it has; 0 when it does not say.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """
        Raises:
            DataError: the file is missing or no video.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"There is no video {self.path}.")
        # A frame may be read in another thread, and what is released under it would crash.
        self._lock = threading.Lock()
        # FFmpeg by name: other backends take a name like `a%02d.mp4` for a series of images.
        self._capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise DataError(
                f"The video {self.path} cannot be read: it is damaged, or of a format FFmpeg does not know."
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if RATES[0] <= rate <= RATES[1] else USUAL_RATE
        self.declared = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        """uint8 (height, width, 3) per frame.

        Raises:
            DataError: after the last frame that could be read, when there are to be more.
        """
        count = 0
        while True:
            with self._lock:
                there, frame = self._capture.read()
            if not there:
                break
            count += 1
            yield frame
        # Some files are a frame or two short of what they declare.
        if count == 0 or count < self.declared * 0.98 - 2:
            raise DataError(
                f"The video {self.path} is damaged: {count} of {self.declared} frames could be read. Replace the file."
            )

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._capture.release()


class VideoWriter:
    """An MP4 (MPEG-4 part 2) that is at its place once it is whole; a context manager.

    It is opened by the first frame, whose size the others are given; without frames there is no file. The format has
    even sizes: an odd last row or column is doubled. Frames that it has no room for are made smaller.
    """

    def __init__(self, path: str | os.PathLike, rate: float) -> None:
        self.path, self.rate = Path(path), rate
        self._writer: cv2.VideoWriter | None = None
        self._temporary: str | None = None
        self._count = 0
        self._lock = threading.Lock()  # frames may be written by another thread than the one that leaves

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 (height, width, 3) BGR.

        Raises:
            CheckpointError: the file cannot be written.
        """
        # OpenCV would cut a last odd row and column off.
        frame = cv2.copyMakeBorder(frame, 0, frame.shape[0] % 2, 0, frame.shape[1] % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            self._open(frame.shape[1], frame.shape[0])
        if frame.shape[1::-1] != self._size:
            frame = cv2.resize(frame, self._size)
        with self._lock:
            self._writer.write(frame)
            self._count += 1

    def _open(self, width: int, height: int) -> None:
        handle, self._temporary = open_temporary(self.path, ".tmp.mp4")  # the suffix says the format
        os.close(handle)
        shrunk = min(1.0, MAX_PIXELS / max(width, height))
        self._size = (max(2, int(width * shrunk) // 2 * 2), max(2, int(height * shrunk) // 2 * 2))
        self._writer = cv2.VideoWriter(
            self._temporary, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), self.rate, self._size
        )
        if not self._writer.isOpened():
            self._discard()
            raise CheckpointError(
                f"{self.path} could not be written: the disk is full, or OpenCV's FFmpeg has no encoder for it."
            )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._writer is None:
            return
        with self._lock:
            self._writer.release()
        # A damaged input's good frames are kept; what an interrupt or a full disk left is not.
        if kind is not None and not issubclass(kind, DataError):
            self._discard()
            return
        try:
            if not self._is_complete():
                raise CheckpointError(f"{self.path} could not be written whole: is the disk full?")
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise CheckpointError(f"{self.path} could not be written: {error.strerror or error}.") from error
        finally:
            self._discard()

    def _is_complete(self) -> bool:
        """Whether all frames are in the file: OpenCV only warns of those that it could not write."""
        capture = cv2.VideoCapture(self._temporary, cv2.CAP_FFMPEG)
        try:
            # The index of the frames is the last that is written.
            return capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) == self._count and capture.read()[0]
        finally:
            capture.release()

    def _discard(self) -> None:
        if self._temporary is not None and os.path.exists(self._temporary):
            os.unlink(self._temporary)
