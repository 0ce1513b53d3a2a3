"""A sink for records that were dead letters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from confluent_kafka import KafkaException

from streamml.adapters.kafka.client import error_of
from streamml.adapters.kafka.sink import KafkaSink
from streamml.engine.dead_letters import PREFIX
from streamml.errors import FatalError, SinkUnavailable
from streamml.ports.sink import OutboundRecords
from streamml.ports.source import Headers

_LOG: Final = logging.getLogger("streamml.kafka")
_CALL_S: Final = 30.0
_ATTEMPTS: Final = f"{PREFIX}attempts"


class RedriveSink(KafkaSink):
    """Writes what became of a round of dead letters: predictions, and letters that failed again, with all of their attempts.

    `finish` takes those out that did not fail, when everything else is acknowledged. With a ``transactional.id`` the whole
    round is one transaction, so that who reads committed records sees all of it or nothing.
    """

    def __init__(self, client: Mapping[str, Any], letters: str, attempts: Mapping[bytes, int]) -> None:
        """
        Args:
            client: librdkafka properties, ``bootstrap.servers`` at least.
            letters: the dead-letter topic.
            attempts: of the letters of the round so far, by key.
        """
        super().__init__(client)
        self._transactional = "transactional.id" in client
        self._letters = letters
        self._attempts = attempts
        self._is_open = False
        self.failed: set[bytes] = set()
        """Keys of letters that were written."""

    def open(self) -> None:
        """See `Sink.open`; again is once. In a transaction, what an earlier process has not ended never counts from now on."""
        if self._is_open:
            return
        self._open()
        self._is_open = True

    def _open(self) -> None:
        if not self._transactional:
            super().open()
            return
        try:
            self._producer.init_transactions(_CALL_S)
            self._producer.begin_transaction()
        except KafkaException as error:
            if error.args[0].retriable():
                raise SinkUnavailable(f"The broker's coordinator of transactions does not answer: {error}.") from error
            raise error_of(error.args[0]) from error

    def abort(self) -> None:
        """Take back what is in the transaction, where there is one; readers of committed records wait for its end."""
        if not self._transactional:
            return
        try:
            self._producer.abort_transaction(_CALL_S)
        except KafkaException as error:
            _LOG.warning("A round could not be taken back; the broker does that in time: %s", error.args[0].str())

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        super().send(token, [self._counted(block) if block.topic == self._letters else block for block in blocks])

    def _counted(self, block: OutboundRecords) -> OutboundRecords:
        keys = [key or b"" for key in block.keys]
        self.failed.update(keys)
        rows = zip(keys, block.headers, strict=True)
        return replace(block, headers=[_added(headers, self._attempts.get(key, 0)) for key, headers in rows])

    def finish(self, now_ms: int) -> int:
        """Take the letters out that did not fail again; returns how many.

        Raises:
            FatalError: the broker did not take that; nothing of the round is lost, and it may be done again.
        """
        gone = [key for key in self._attempts if key not in self.failed]
        count = len(gone)
        if count:
            tombstones = OutboundRecords(self._letters, gone, [None] * count, [[]] * count, [now_ms] * count)
            super().send(-1, [tombstones])
        left = self.close(_CALL_S)
        refused = [one for ended in self.completions() for one in getattr(ended, "refusals", ())]
        if left or refused:
            why = refused[0].message if refused else f"{left} records were not acknowledged within {_CALL_S:.0f} s"
            raise FatalError(f"The dead letters could not be taken out of {self._letters}: {why}. Redrive again.")
        if self._transactional:
            try:
                self._producer.commit_transaction(_CALL_S)
            except KafkaException as error:
                raise error_of(error.args[0]) from error
        return count


def _added(headers: Headers, attempts: int) -> Headers:
    if not attempts:
        return headers
    # The last one is ours; the record's own may have such a name.
    place = max(index for index, (name, _) in enumerate(headers) if name == _ATTEMPTS)
    total = int(headers[place][1] or b"0") + attempts
    return [*headers[:place], (_ATTEMPTS, str(total).encode()), *headers[place + 1 :]]
