"""What one server takes at once, so that no caller can fill its memory or hold it up."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
MEGAPIXEL = 10**6


@dataclass(frozen=True)
class Limits:
    """
    Attributes:
        queue: requests that were accepted and are not answered yet; others are told to come again.
        wait: seconds that an image waits for others of its size while its batch is not full.
        max_body: bytes of a request's body.
        max_pixels: of an image, which a small file can have many of.
        upload_time: seconds that a body may take to arrive.
    """

    queue: int = 256
    wait: float = 0.005
    max_body: int = 20 * MIB
    max_pixels: int = 50 * MEGAPIXEL
    upload_time: float = 30.0
