"""All mistakes."""

from __future__ import annotations

from typing import Final

from tests.planted import around, engine

MISTAKES: Final = (*engine.MISTAKES, *around.MISTAKES)
