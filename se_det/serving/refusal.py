"""Why a request is not answered with detections."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is refused with a sentence.

    Args:
        status: of HTTP, 4xx or 5xx.
        sentence: what was wrong and what to do.
        retry_after: seconds after which the same request may succeed; None where it will not.
    """

    def __init__(self, status: int, sentence: str, *, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry_after = status, sentence, retry_after
