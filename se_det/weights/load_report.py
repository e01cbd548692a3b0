"""The account of a load: what became of every key."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """Keys of the network unless said otherwise.

    Attributes:
        loaded: took their values from the file.
        missing: the file has nothing for them; they keep their initial values.
        unexpected: keys of the file that the network has no place for.
        reshaped: loaded after a change of shape that loses nothing, such as (n, m) and (n, m, 1, 1).
        resized: the file has them in another shape, which is left out; those of the predictors, when the number of
            classes differs. They also stand in `missing`.
        fresh_gates: blocks of whose gate the file has nothing, or a part.
        resized_gates: blocks whose gate took the hidden width that the file has.
        notes: sentences about what was left out on purpose.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    fresh_gates: list[str] = field(default_factory=list)
    resized_gates: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines to log."""
        lines = [
            f"{self.source}: {len(self.loaded)} loaded, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.reshaped)} reshaped."
        ]
        for title, keys in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("reshaped", self.reshaped),
            ("of another shape, so not loaded", self.resized),
            ("gates without weights or with a part, which are trained from initial values", self.fresh_gates),
            ("gates that took the file's hidden width", self.resized_gates),
        ):
            if keys:
                lines.append(f"  {title}: {shorten(keys)}")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def shorten(keys: list[str], max_keys: int = 6) -> str:
    """The first few keys, and how many there are."""
    shown = ", ".join(keys[:max_keys])
    return shown if len(keys) <= max_keys else f"{shown}, ... ({len(keys)} in all)"
