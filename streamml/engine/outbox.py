"""Rows that ended and are on their way out: two guarantees, one contract.

At least once: rows settle when the broker has acknowledged them, and positions are committed behind that. Exactly once
(promise D2): rows go out in transactions that carry the positions too, and settle when theirs is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Protocol

import numpy as np

from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.assignment import Slot
from streamml.engine.backpressure import Budget, Gauge
from streamml.engine.events import AbortTransaction, Action, CommitTransaction, Send
from streamml.engine.outbound import in_order_of_letters, refused_as_letters
from streamml.engine.retry import Backoff
from streamml.engine.rows import stretches
from streamml.ports.sink import Delivered, OutboundRecords, TransactionEnded

Rows = tuple[Outcomes, ...]
Compose = Callable[[Rows, float], tuple[OutboundRecords, ...]]
"""Records of rows at a time: a block for each block of rows, then what belongs to all of them."""


class Outbox(Protocol):
    """Takes rows that may go out, in order, and says when they are settled."""

    @property
    def crowded(self) -> bool:
        """Whether more waits here than is good: the last stage may rest."""
        ...

    @property
    def gauge(self) -> Gauge:
        """What the sink has been given and has not reported."""
        ...

    def put(self, rows: Rows) -> Rows:
        """Rows that ended and may go out; returns those that are settled by that alone."""
        ...

    def go_on(self, slots: Sequence[Slot], now: float, *, urgent: bool, withheld: bool) -> list[Action]:
        """What to do now.

        Args:
            urgent: somebody waits for these rows to settle.
            withheld: nothing may be committed.
        """
        ...

    def delivered(self, event: Delivered) -> tuple[Rows, Rows]:
        """Rows that ended, and rows that the broker refused, as dead letters to be put. A record settles when all its rows have."""
        ...

    def ended(self, event: TransactionEnded, slots: Sequence[Slot], now: float) -> Rows:
        """Rows that settle because their transaction is committed."""
        ...

    def forget(self, slots: set[int]) -> None:
        """These slots are closed."""
        ...

    def wake_at(self, slots: Sequence[Slot]) -> float | None:
        """When there is something to do even if nothing happens."""
        ...


class AtLeastOnce:
    """Hands rows to the sink as they come, as far as it has room."""

    def __init__(self, compose: Compose, budget: Budget) -> None:
        """
        Args:
            compose: makes records of rows, given the time.
            budget: bound on what is handed over and not acknowledged.
        """
        self._compose = compose
        self.gauge = Gauge(budget)
        self._held: deque[Rows] = deque()
        self._sent: dict[int, Rows] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._tokens = count(1)

    @property
    def crowded(self) -> bool:
        """See `Outbox.crowded`."""
        return bool(self._held)

    def put(self, rows: Rows) -> Rows:
        """See `Outbox.put`."""
        if not _going(rows):
            return rows
        self._held.append(rows)
        return ()

    def go_on(self, slots: Sequence[Slot], now: float, *, urgent: bool, withheld: bool) -> list[Action]:
        """See `Outbox.go_on`."""
        actions: list[Action] = []
        while self._held and self.gauge.room:
            rows = self._held.popleft()
            going, token = _going(rows), next(self._tokens)
            self._sent[token], self._sizes[token] = going + _filtered(rows), _size(going)
            self.gauge.add(*self._sizes[token])
            actions.append(Send(token, self._compose(going, now), going))
        return actions

    def delivered(self, event: Delivered) -> tuple[Rows, Rows]:
        """See `Outbox.delivered`."""
        rows, (count, size) = self._sent.pop(event.token), self._sizes.pop(event.token)
        self.gauge.add(-count, -size)
        if not event.refusals:
            return rows, ()
        return refused_as_letters(rows, event.refusals)

    def ended(self, event: TransactionEnded, slots: Sequence[Slot], now: float) -> Rows:
        """See `Outbox.ended`."""
        raise AssertionError("There are no transactions here.")

    def forget(self, slots: set[int]) -> None:
        """See `Outbox.forget`. What is held may be a dead letter, whose record is forgotten with its slot."""
        self._held = deque(kept for rows in self._held if (kept := _without(rows, slots)))

    def wake_at(self, slots: Sequence[Slot]) -> float | None:
        """See `Outbox.wake_at`."""
        return None


class ExactlyOnce:
    """Hands rows to the sink in transactions.

    A transaction is a cut through every partition: all rows between the committed position and the one that it commits,
    and no others, so whoever reads on from there repeats nothing and leaves out nothing. One that was aborted is sent anew
    from what is kept here, without the rows of slots that were closed meanwhile, and with dead letters for the records
    that the broker refused.
    """

    def __init__(self, compose: Compose, budget: Budget, interval_s: float, backoff: Backoff) -> None:
        """
        Args:
            compose: makes records of rows, given the time.
            budget: bound on a transaction, which is committed at once when it is reached, and on what waits for the next one.
            interval_s: age at which a transaction is committed.
            backoff: pause before a transaction that failed is tried again.
        """
        self._compose = compose
        self.gauge = Gauge(budget)
        self._waiting = Gauge(budget)
        self._interval_s = interval_s
        self._backoff = backoff
        self._held: deque[Rows] = deque()
        self._sent: dict[int, Rows] = {}
        # Per slot, one past the last ordinal in this transaction, and in the one before.
        self._cut: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._ending = False
        self._broken = False
        self._commit_at = 0.0
        self._attempt = 0
        self._retry_at = 0.0
        self._committing: dict[int, int] = {}
        self._closed: set[int] = set()
        self._tokens = count(1)

    @property
    def crowded(self) -> bool:
        """See `Outbox.crowded`."""
        return not self._waiting.room

    def put(self, rows: Rows) -> Rows:
        """See `Outbox.put`. Rows that were filtered out belong to the cut too."""
        self._held.append(rows)
        self._waiting.add(*_size(rows))
        return ()

    def go_on(self, slots: Sequence[Slot], now: float, *, urgent: bool, withheld: bool) -> list[Action]:
        """See `Outbox.go_on`."""
        if self._ending:
            return []
        if self._broken or (withheld and self._sent):
            # A transaction that is left open would block its readers, until the broker gives its producer up.
            self._ending = self._broken = True
            return [AbortTransaction()]
        if withheld or now < self._retry_at:
            return []
        actions = list(self._sends(now))
        if urgent or now >= self._commit_at or not self.gauge.room:
            self._committing = self._changed(slots)
            if self._committing:
                self._ending = True
                positions = {slot.partition: self._committing.get(slot.number, -1) for slot in slots}
                actions.append(CommitTransaction({where: to for where, to in positions.items() if to >= 0}))
        return actions

    def _sends(self, now: float) -> Iterator[Action]:
        while self._held and self.gauge.room:
            rows = self._held.popleft()
            going, token = _going(rows), next(self._tokens)
            self._sent[token] = going + _filtered(rows)
            count, size = _size(rows)
            self._waiting.add(-count, -size)
            self.gauge.add(count, size)
            for block in rows:
                # What the sequencer releases has its ordinals ascending in each slot.
                for number, _, end in stretches(block.origin):
                    self._cut[number] = max(self._cut.get(number, 0), int(block.origin.ordinal[end - 1]) + 1)
            if going:
                yield Send(token, self._compose(going, now), going)

    def _changed(self, slots: Sequence[Slot]) -> dict[int, int]:
        """Positions of the cut by slot number, as far as they are new."""
        positions = ((slot, slot.ledger.position_at(self._cut.get(slot.number, 0))) for slot in slots)
        return {slot.number: to for slot, to in positions if to != slot.committed}

    def delivered(self, event: Delivered) -> tuple[Rows, Rows]:
        """See `Outbox.delivered`. A refused record spoils its transaction; the next one has a dead letter in its place."""
        if event.refusals and event.token in self._sent:
            rest, letters = refused_as_letters(self._sent[event.token], event.refusals)
            self._sent[event.token] = in_order_of_letters((*rest, *letters))
            self._broken = self._broken or not self._ending
        return (), ()

    def ended(self, event: TransactionEnded, slots: Sequence[Slot], now: float) -> Rows:
        """See `Outbox.ended`."""
        self._ending, broken, self._broken = False, self._broken, False
        rows = tuple(block for sent in self._sent.values() for block in sent)
        if event.committed:
            self._done, self._attempt, self._commit_at = dict(self._cut), 0, now + self._interval_s
            for slot in slots:
                slot.committed = self._committing.get(slot.number, slot.committed)
        else:
            again = [kept for rows in self._sent.values() if (kept := _without(rows, self._closed))]
            self._held.extendleft(reversed(again))
            self._weigh_held()
            self._cut = dict(self._done)
            self._attempt += 0 if broken else 1
            self._retry_at = now + (0.0 if broken else self._backoff.delay(self._attempt, 0.5))
        self._sent.clear()
        self._closed.clear()
        self.gauge.clear()
        return rows if event.committed else ()

    def forget(self, slots: set[int]) -> None:
        """See `Outbox.forget`."""
        self._held = deque(kept for rows in self._held if (kept := _without(rows, slots)))
        self._weigh_held()
        self._closed |= slots
        if any(np.isin(block.origin.slot, list(slots)).any() for rows in self._sent.values() for block in rows):
            # Rows of a partition that has gone must not be committed; if that is under way already, the broker decides.
            self._broken = True
        for number in slots:
            self._cut.pop(number, None)
            self._done.pop(number, None)

    def _weigh_held(self) -> None:
        self._waiting.clear()
        for rows in self._held:
            self._waiting.add(*_size(rows))

    def wake_at(self, slots: Sequence[Slot]) -> float | None:
        """See `Outbox.wake_at`."""
        if self._ending or not (self._held or self._sent or self._changed(slots)):
            return None
        return max(self._commit_at, self._retry_at)


def _size(rows: Rows) -> tuple[int, int]:
    return sum(map(len, rows)), sum(block.size_bytes for block in rows)


def _going(rows: Iterable[Outcomes]) -> Rows:
    return tuple(block for block in rows if block.kind is not Kind.FILTERED)


def _filtered(rows: Iterable[Outcomes]) -> Rows:
    return tuple(block for block in rows if block.kind is Kind.FILTERED)


def _without(rows: Rows, slots: set[int]) -> Rows:
    kept = (block.take(~np.isin(block.origin.slot, list(slots))) for block in rows)
    return tuple(block for block in kept if len(block))
