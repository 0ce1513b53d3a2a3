"""A sink that writes in transactions, with the group's positions in them (promise D2)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException

from streamml.adapters.kafka.client import error_of, translated
from streamml.adapters.kafka.positions import marked
from streamml.adapters.kafka.sink import KafkaSink
from streamml.errors import Fenced, SinkUnavailable
from streamml.ports.sink import Delivered, OutboundRecords, TransactionEnded
from streamml.ports.source import Positions

_LOG: Final = logging.getLogger("streamml.kafka")
_CALL_S: Final = 5.0
_JOIN_TRIES: Final = 6
_PATIENCE_S: Final = 15.0


class KafkaTransactions(KafkaSink):
    """Writes records in transactions; see `streamml.ports.sink.TransactionalSink` for the contract.

    A transaction ends on a thread of its own, as the client's calls wait for the broker; until it has, nobody else touches
    the producer. A producer that the broker has given up on, as it does when a transaction times out in an outage, is
    replaced by a new one under the same name. So is one that does not come back: `send_offsets_to_transaction` has no
    timeout while a coordinator is away (librdkafka issues 5456 and 5511). What protects from two workers on one partition
    is the generation of the group, which every commit names (KIP-447).
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        name: str,
        member: Callable[[], Any],
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            client: librdkafka properties, ``bootstrap.servers`` and ``transaction.timeout.ms`` at least.
            name: ``transactional.id``; of one worker at a time.
            member: this worker in its group as the client knows it, in its present generation.
            topic_ids: of the source's topics, committed with the positions.
        """
        super().__init__({**client, "transactional.id": name})
        self._member = member
        self._topic_ids = topic_ids or {}
        self._begun = False
        self._closing = False
        self._ending: _Ending | None = None

    def open(self) -> None:
        """See `Sink.open`. Ends whatever transaction a dead worker of this name has left."""
        for attempt in range(_JOIN_TRIES):
            try:
                self._producer.init_transactions(_CALL_S)
                return
            except KafkaException as error:
                if not error.args[0].retriable():
                    with translated():
                        raise
                _LOG.warning("Try %d to begin transactions: %s", attempt + 1, error.args[0].str())
        raise SinkUnavailable("The broker's coordinator of transactions does not answer.")

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        try:
            self._begin()
        except KafkaException as error:
            _given_up(error)
        super().send(token, blocks)

    def commit(self, positions: Positions) -> None:
        """See `TransactionalSink.commit`."""
        member = self._member()
        self._end(lambda ending: self._committed(ending, positions, member))

    def abort(self) -> None:
        """See `TransactionalSink.abort`."""
        self._end(self._aborted)

    def _end(self, job: Callable[[_Ending], bool], *, patient: bool = False) -> None:
        self._ending = _Ending(job, self._producer, patient=patient)
        self._ending.start()

    def completions(self) -> Sequence[Delivered | TransactionEnded]:
        """See `Sink.completions`; reports of a transaction come before its end."""
        ending = self._ending
        if ending is None:
            try:
                return super().completions()
            except Fenced as error:
                _given_up(error)
                return []
        if not ending.over.is_set():
            if ending.late():
                _LOG.warning("The client does not come back from ending a transaction; a new producer goes on.")
                self._producer = self._opened()
                self._end(self._begun_anew, patient=True)
            return []
        self._ending = None
        if ending.error is not None:
            raise ending.error
        ended, self._ended[:] = list(self._ended), []
        return [*ended, TransactionEnded(ending.committed)]

    def close(self, timeout_s: float) -> int:
        """See `Sink.close`. What is in no committed transaction is taken back."""
        self._closing = True
        left = sum(batch.left for batch, _ in self._waiting)
        if self._begun and self._ending is None:
            self.abort()
        if self._ending is not None:
            self._ending.over.wait(timeout_s)
        return left

    def _begin(self) -> None:
        if not self._begun:
            self._producer.begin_transaction()
            self._begun = True

    # -- on the thread of an ending

    def _committed(self, ending: _Ending, positions: Positions, member: Any) -> bool:
        producer, offsets = ending.producer, marked(positions, self._topic_ids)
        try:
            self._begin()
            while self._waiting and self._ending is ending and not self._closing:
                producer.poll(0.05)
                self._produce()
            self._until_done(lambda timeout_s: producer.send_offsets_to_transaction(offsets, member, timeout_s))
            if self._ending is not ending:
                return False
            self._until_done(producer.commit_transaction)
        except KafkaException as error:
            _LOG.warning("A transaction is taken back and sent anew: %s", error.args[0].str())
            return self._aborted(ending)
        if self._ending is not ending:
            return False
        self._begun = False
        return True

    def _aborted(self, ending: _Ending) -> bool:
        """Take back what is in the transaction. Who was given up as late must not touch the producer that went on."""
        if self._ending is not ending:
            return False
        try:
            self._until_done(ending.producer.abort_transaction)
        except KafkaException as error:
            if self._ending is not ending:
                return False
            _LOG.warning("The broker has given up on a producer; a new one goes on: %s", error.args[0].str())
            self._producer = self._opened()
            return self._begun_anew(ending)
        if self._ending is ending:
            self._waiting.clear()
            self._begun = False
        return False

    def _begun_anew(self, ending: _Ending) -> bool:
        self._until_done(self._producer.init_transactions)
        self._waiting.clear()
        self._begun = False
        return False

    def _until_done(self, call: Callable[[float], Any]) -> None:
        """Call again what may be called again: the broker may be away for any time."""
        while True:
            try:
                call(_CALL_S)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or self._closing:
                    raise
                _LOG.warning("A transaction waits for the broker: %s", error.args[0].str())


def _given_up(error: Exception) -> None:
    """The broker takes nothing more from this producer, and the transaction's end will have a new one made.

    That says nothing about this worker: a transaction that took too long ends so, as does an identity that another process
    took over, and of that its membership of the group is told.
    """
    _LOG.warning("The broker has given up on a producer: %s", error)


class _Ending:
    """One transaction's end, under way on a thread."""

    def __init__(self, job: Callable[[_Ending], bool], producer: Any, *, patient: bool) -> None:
        self._job = job
        self.producer = producer
        self._late_at = float("inf") if patient else time.monotonic() + _PATIENCE_S
        self.over = threading.Event()
        self.committed = False
        self.error: Exception | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="streamml-transaction", daemon=True).start()

    def late(self) -> bool:
        """Whether it takes longer than the client's own timeouts allow."""
        return time.monotonic() > self._late_at

    def _run(self) -> None:
        try:
            self.committed = self._job(self)
        except KafkaException as error:
            self.error = error_of(error.args[0])
        except Exception as error:  # noqa: BLE001  raised by `completions` on the worker's thread
            self.error = error
        finally:
            self.over.set()
