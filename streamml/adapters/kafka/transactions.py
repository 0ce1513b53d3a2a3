"""A sink that writes in transactions, with the group's positions in them (promise D2)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from streamml.adapters.kafka.client import error_of, translated
from streamml.adapters.kafka.positions import marked
from streamml.adapters.kafka.sink import LONG_S, KafkaSink, named
from streamml.errors import Fenced, SinkUnavailable, SourceUnavailable
from streamml.ports.sink import Delivered, OutboundRecords, TransactionEnded
from streamml.ports.source import Positions, TopicPartition

_LOG: Final = logging.getLogger("streamml.kafka")
_CALL_S: Final = 5.0
_JOIN_TRIES: Final = 6
_PATIENCE_S: Final = 15.0
_ASK_AGAIN_S: Final = 0.5


class KafkaTransactions(KafkaSink):
    """Writes records in transactions; see `streamml.ports.sink.TransactionalSink` for the contract.

    A transaction ends on a thread of its own, as the client's calls wait for the broker; until it has, nobody else touches
    the producer. A producer that the broker has given up on, as it does when a transaction times out in an outage, is
    replaced by a new one under the same name. So is one that does not come back: `send_offsets_to_transaction` has no
    timeout while a coordinator is away (librdkafka issues 5456 and 5511). What protects from two workers on one partition
    is the generation of the group, which every commit names (KIP-447).

    A commit whose answer was lost may have been made. When the next producer has begun, the broker has ended the transaction
    of the one before for good, and the group's positions tell how.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        name: str,
        member: Callable[[], Any],
        committed: Callable[[Iterable[TopicPartition]], Positions],
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            client: librdkafka properties, ``bootstrap.servers`` and ``transaction.timeout.ms`` at least.
            name: ``transactional.id``; of one worker at a time.
            member: this worker in its group as the client knows it, in its present generation.
            committed: positions of the group, see `streamml.adapters.kafka.offsets.settled_positions`.
            topic_ids: of the source's topics, committed with the positions.
        """
        super().__init__({**client, "transactional.id": name})
        self._member = member
        self._committed_of = committed
        self._topic_ids = topic_ids or {}
        self._begun = False
        # The client did not take some of its records, which keeps nothing from being committed by itself.
        self._spoiled = False
        self._topics: set[str] = set()
        # Since when transactions have failed, one after the other.
        self._failing_since = float("inf")
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
        self._topics.update(block.topic for block in blocks)
        super().send(token, blocks)

    def commit(self, positions: Positions) -> None:
        """See `TransactionalSink.commit`."""
        member = self._member()
        self._failing_since = min(self._failing_since, time.monotonic())
        self._end(lambda ending: self._committed(ending, member), positions)

    def abort(self) -> None:
        """See `TransactionalSink.abort`."""
        self._end(self._aborted, {})

    def trouble(self) -> str | None:
        """See `Sink.trouble`."""
        seconds = time.monotonic() - self._failing_since
        if seconds < LONG_S or not (self._begun or self._ending):
            return super().trouble()
        return f"no transaction with records for {named(self._topics)} could be committed for {seconds:.0f} s"

    def _end(self, job: Callable[[_Ending], bool], positions: Positions, *, patient: bool = False) -> None:
        self._ending = _Ending(job, self._producer, positions, patient=patient)
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
                self._end(self._begun_anew, ending.positions, patient=True)
            return []
        self._ending = None
        if ending.error is not None:
            raise ending.error
        if ending.committed or not ending.positions:
            self._failing_since = float("inf")
            self._topics.clear()
        self._unended.clear()
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

    def _taken_back(self, error: KafkaError, topic: str) -> None:
        self._spoiled = True

    def _sends_again(self, batch: object, rows: Sequence[object]) -> bool:
        """The whole transaction is, without what was refused."""
        self._spoiled = True
        return False

    # -- on the thread of an ending

    def _committed(self, ending: _Ending, member: Any) -> bool:
        producer, offsets = ending.producer, marked(ending.positions, self._topic_ids)
        try:
            self._begin()
            while self._waiting and self._ending is ending and not self._closing:
                producer.poll(0.05)
                self._produce()
            if self._spoiled:
                return self._aborted(ending)
            self._until_done(lambda timeout_s: producer.send_offsets_to_transaction(offsets, member, timeout_s))
            if self._ending is not ending:
                return False
            self._until_done(producer.commit_transaction)
        except KafkaException as error:
            _LOG.warning("A transaction is taken back and sent anew: %s", error.args[0].str())
            return self._aborted(ending)
        if self._ending is not ending:
            return False
        self._clear()
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
            self._clear()
        return False

    def _begun_anew(self, ending: _Ending) -> bool:
        """Whether the transaction that another producer was to commit is committed."""
        self._until_done(self._producer.init_transactions)
        committed = bool(ending.positions) and self._reached(ending.positions)
        self._clear()
        return committed

    def _clear(self) -> None:
        self._waiting.clear()
        self._begun = self._spoiled = False

    def _reached(self, positions: Positions) -> bool:
        """Whether the group has these positions: it got all of them with the transaction, or none.

        Of a partition that has gone to another member meanwhile it may have any; its rows are nobody's here.
        """
        while True:
            try:
                found = self._committed_of(positions)
                return all(found.get(where, -1) >= to for where, to in positions.items())
            except SourceUnavailable as error:
                if self._closing:
                    raise
                _LOG.warning("Asking whether a transaction was committed: %s", error)
                threading.Event().wait(_ASK_AGAIN_S)

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

    def __init__(self, job: Callable[[_Ending], bool], producer: Any, positions: Positions, *, patient: bool) -> None:
        """
        Args:
            positions: to be committed with it; empty where it is taken back.
        """
        self._job = job
        self.producer = producer
        self.positions = positions
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
