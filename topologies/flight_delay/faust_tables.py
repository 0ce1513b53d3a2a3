"""Faust's tables, for an app that has none."""

from __future__ import annotations

from faust.tables import TableManager


class NoTables(TableManager):
    """Begins at once. Faust's own waits a second for tables to be declared, and nothing is followed until then."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()
