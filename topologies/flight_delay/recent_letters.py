"""Writes dead letters as streamml's workers do theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from streamml.adapters.kafka.client import opened, translated
from streamml.adapters.kafka.sink import DEFAULTS, SAFETY
from streamml.engine.dead_letters import Letter
from streamml.errors import FatalError
from streamml.settings.settings import Settings

_LOOK_S: Final = 0.002
_NOW: Final = 0
"""A timestamp that the client replaces by the time."""


class DeadLetters:
    """The topic of dead letters. One call at a time.

    Faust's producer is not used here: it takes no record above a megabyte, keeps times in floats, and logs the value of a record that
    the broker refuses.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        """
        Raises:
            SettingsError: librdkafka refuses a property.
        """
        self._producer = opened(Producer, {**DEFAULTS, **settings.producer(), **SAFETY})
        self._topic = topic

    async def bury(self, letters: Sequence[Letter]) -> None:
        """Returns when the broker has them, however long it does not answer.

        One that is refused for its time, which the topic of its record took, gets that of now.

        Raises:
            FatalError: the broker refuses one, or this client.
        """
        with translated():
            # Records that go out together are refused together, so that most of them may not be to blame.
            for place in await self._refused(letters):
                one = letters[place]
                if await self._refused([one]) and (reasons := await self._refused([replace(one, timestamp=_NOW)])):
                    raise FatalError(
                        f"The broker refused the dead letter {one.key.decode()}: {reasons[0]}. Let the topic {self._topic!r} take "
                        "what that of arrivals takes (max.message.bytes above its own), then start again; nothing is lost."
                    )

    async def _refused(self, letters: Sequence[Letter]) -> dict[int, str]:
        """Why the broker will never take them, by place."""
        ended: dict[int, KafkaError | None] = {}
        for place, one in enumerate(letters):
            while not self._queued(one, partial(_report, ended, place)):
                await asyncio.sleep(_LOOK_S)
        while len(ended) < len(letters):
            await asyncio.sleep(_LOOK_S)
            self._producer.poll(0)
        return {place: error.str() for place, error in ended.items() if error is not None}

    def _queued(self, one: Letter, report: Callable[[KafkaError | None, Message], None]) -> bool:
        """Whether the client has room for it."""
        try:
            self._producer.produce(
                self._topic, one.value, one.key, headers=[*one.headers], timestamp=one.timestamp, on_delivery=report
            )
        except BufferError:
            self._producer.poll(0)
            return False
        return True


def _report(ended: dict[int, KafkaError | None], place: int, error: KafkaError | None, _: Message) -> None:
    ended[place] = error
