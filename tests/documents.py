"""What the documents tell a reader to type: the commands and the Python and YAML blocks in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "datasets/README.md",
    ROOT / "model_zoo/README.md",
]
LANGUAGES = {"bash", "console", "python", "yaml", "text"}
# In the text, a command is what begins so and goes on.
INLINE = re.compile(
    r"(python|se-det [\w-]+|torchrun|pytest|pip install|make|tools/\w+\.py|datasets/\w+\.py) \S|se-det doctor$"
)
VARIABLE = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Command:
    """A command as it stands, on one line, and what a document says that it prints (None where it says nothing)."""

    page: str
    text: str
    output: str | None = None

    @property
    def words(self) -> list[str]:
        """The command's words, without variables set before them."""
        words = shlex.split(self.text, comments=True)
        while VARIABLE.fullmatch(words[0]):
            words.pop(0)
        return words[1:] if words[:1] == ["python"] and words[1] != "-m" else words


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    found, start, language, lines = [], 0, "", []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif start:
            found.append(Block(name_of(page), start, language, "\n".join(lines) + "\n"))
            start = 0
        else:
            start, language, lines = number, line[3:], []
    assert not start, f"{page.name}, line {start}: this block has no end"
    return found


def commands(page: Path) -> list[Command]:
    """The commands of a page: those of its blocks, then those in its text."""
    found = []
    for block in blocks(page):
        text = block.text.replace("\\\n", " ")
        if block.language == "bash":
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("#", "export "))]
            found += [Command(block.page, " ".join(line.split())) for line in lines]
        elif block.language == "console":
            for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
                line, _, output = part.partition("\n")
                found.append(Command(block.page, line, output))
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for text in re.findall(r"`([^`]+)`", prose):
        if INLINE.match(text):
            found.append(Command(name_of(page), " ".join(text.split())))
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
