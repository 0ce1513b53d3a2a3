"""What a mistake is: what would be written instead, and which tests must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """One edit of one file.

    Args:
        name: what is wrong with it, in words.
        file: path from the root of the repository.
        right: text that occurs once in the file.
        wrong: what stands there instead.
        tests: node ids without parameters; all of them together must not pass.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
