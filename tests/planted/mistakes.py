"""All mistakes."""

from __future__ import annotations

from typing import Final

from tests.planted import around, engine, near

MISTAKES: Final = (*engine.MISTAKES, *around.MISTAKES, *near.MISTAKES)
