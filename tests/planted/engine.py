"""Mistakes in the engine."""

from __future__ import annotations

from typing import Final

from tests.planted.mistake import Mistake

_ENGINE: Final = "streamml/engine/engine.py"
_LEDGER: Final = "streamml/engine/ledger.py"
_OUTBOX: Final = "streamml/engine/outbox.py"
_AT_LEAST_ONCE: Final = "tests/property/test_engine.py::TestD1D4D6AtLeastOnce::runTest"
_EXACTLY_ONCE: Final = "tests/property/test_exactly_once.py::TestD2ExactlyOnce::runTest"

MISTAKES: Final = (
    Mistake(
        "a position moves past a record that is not settled",
        _LEDGER,
        "            if entry.unsettled:\n                break\n",
        "            if entry.unsettled:\n                continue\n",
        ("tests/property/test_ledger.py::test_d1_position_is_behind_every_unsettled_record",),
    ),
    Mistake(
        "a record may be settled twice",
        _LEDGER,
        "                if entry.unsettled < 0:\n",
        "                if False:\n",
        (
            "tests/property/test_ledger.py::test_d1_settling_twice_is_a_violation_also_behind_records_that_are_not_settled",
        ),
    ),
    Mistake(
        "the position after a stop is committed without waiting for what is on its way",
        _ENGINE,
        "if self._gauge.rows and self._worth_waiting(stop.deadline, now):",
        "if False:",
        ("tests/testing/test_driver.py::test_l3_a_shutdown_finishes_what_fits",),
    ),
    Mistake(
        "the epoch is not checked: results of an earlier assignment count",
        "streamml/engine/assignment.py",
        "            del self._by_number[slot.number]\n",
        "            pass\n",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "the sequencer is bypassed",
        _ENGINE,
        "released.extend(slot.sequencer.offer(pieces))",
        "released.extend(pieces)",
        (_EXACTLY_ONCE,),
    ),
    Mistake(
        "offsets are committed outside of the transaction",
        _ENGINE,
        "if not self._config.exactly_once and now >= self._commit_at:",
        "if now >= self._commit_at:",
        (_EXACTLY_ONCE,),
    ),
    Mistake(
        "a transaction with a refused record is sent anew as it was",
        _OUTBOX,
        "self._sent[event.token] = in_order_of_letters((*rest, *letters))",
        "pass",
        (
            "tests/unit/engine/test_outbox.py::test_d2_a_transaction_with_a_refused_record_is_tried_again_with_its_dead_letter",
        ),
    ),
    Mistake(
        "the dead letter of a refused prediction comes behind later ones",
        _OUTBOX,
        "self._sent[event.token] = in_order_of_letters((*rest, *letters))",
        "self._sent[event.token] = (*rest, *letters)",
        (_EXACTLY_ONCE,),
    ),
    Mistake(
        "a dead letter is not counted",
        "streamml/engine/brake.py",
        "            self._letters += len(errors)\n",
        "",
        (
            "tests/testing/test_driver.py"
            "::test_e4_too_many_dead_letters_pause_the_group_also_after_a_crash_until_it_is_resumed",
        ),
    ),
    Mistake(
        "a storm is forgotten because somebody pauses by hand",
        "streamml/engine/brake.py",
        "state.paused and (self.withholds or state.storm is not None)",
        "state.paused and state.storm is not None",
        ("tests/unit/engine/test_pause.py::test_a_storm_is_not_forgotten_because_somebody_pauses_by_hand",),
    ),
    Mistake(
        "ids of two partitions are the same",
        "streamml/engine/assignment.py",
        'self.prefixes.append(f"{topic}/{partition.partition}/")',
        'self.prefixes.append(f"{topic}/0/")',
        ("tests/testing/test_any_mix.py::test_d1_d3_d4_everything_ends_once_in_order_and_is_committed",),
    ),
    Mistake(
        "the budget closes no gate",
        _ENGINE,
        "wanted = self._gauge.room and self._stop is None",
        "wanted = self._stop is None",
        ("tests/testing/test_driver.py::test_b2_a_slow_model_stops_polling_at_the_budget",),
    ),
    Mistake(
        "rows wait until a batch is full",
        "streamml/engine/batcher.py",
        "        if not queued_rows:\n",
        "        if queued_rows < self.max_rows:\n",
        ("tests/testing/test_driver.py::test_m1_a_slow_model_makes_larger_batches_and_none_waits_for_a_timer",),
    ),
    Mistake(
        "a batch runs past the earliest deadline",
        "streamml/engine/batcher.py",
        "    if fit >= queued_rows:\n",
        "    if fit >= 1:\n",
        ("tests/unit/engine/test_batcher.py::test_m1_a_free_stage_gets_what_can_be_done_before_the_earliest_deadline",),
    ),
    Mistake(
        "being late is a storm",
        "streamml/engine/brake.py",
        " if one.error != DeadlineExceeded.__name__]",
        "]",
        ("tests/testing/test_deadlines.py::test_m2_every_row_ends_as_its_topology_says",),
    ),
    Mistake(
        "an offset is committed before there is a result",
        _LEDGER,
        "        return self._position\n\n    @property\n    def unsettled",
        "        return self._entries[-1].end if self._entries else self._position\n\n    @property\n    def unsettled",
        ("tests/testing/test_driver.py::test_d1_nothing_is_committed_before_it_has_ended", _AT_LEAST_ONCE),
    ),
    Mistake(
        "the hidden end of a partition is committed with records open before it",
        _LEDGER,
        "            self._entries[-1].end = max(self._entries[-1].end, position)",
        "            self._position = max(self._position, position)",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "no epoch check at the end of a stage: results go to another slot",
        _ENGINE,
        "            slot = self._assignment.by_number(number)\n"
        "            if slot is None:\n"
        "                self.statistics.dropped_stale",
        "            slot = self._assignment.by_number(number) or next(iter(self._assignment.slots()), None)\n"
        "            if slot is None:\n"
        "                self.statistics.dropped_stale",
        (
            "tests/unit/engine/test_release.py::test_d6_of_a_batch_one_of_whose_partitions_went_only_the_rest_goes_out",
            _AT_LEAST_ONCE,
        ),
    ),
    Mistake(
        "no epoch check between stages",
        _ENGINE,
        "        if closes == self._closes:\n            return batch",
        "        if closes:\n            return batch",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "lost partitions are not forgotten",
        _ENGINE,
        "                case Lost():\n                    self._close(event.partitions)",
        "                case Lost():\n                    pass",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "an assignment does not end the one before",
        _ENGINE,
        "        self._close(event.positions)\n",
        "",
        (_EXACTLY_ONCE,),
    ),
    Mistake(
        "released partitions are not forgotten",
        _ENGINE,
        "            self._close(revoke.partitions)\n",
        "",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "queued rows of a lost partition are run",
        _ENGINE,
        "            stage.batcher.drop(closed)",
        "            stage.batcher.drop(set())",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "sequencer takes any whole piece for the next one",
        "streamml/engine/sequencer.py",
        "first == self._next and int(",
        "int(",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "a refused prediction is settled twice",
        _OUTBOX,
        "        return refused_as_letters(rows, event.refusals)\n",
        "        return rows, refused_as_letters(rows, event.refusals)[1]\n",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "the siblings of a refused child settle their record",
        _ENGINE,
        "            self._settle(ended, actions, besides=letters)",
        "            self._settle(ended, actions)",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "a refused prediction vanishes",
        _ENGINE,
        "            self._send(mine, actions)\n",
        "            pass\n",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "a failed commit is forgotten",
        _ENGINE,
        "                slot.unsure = True",
        "                pass",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "room in the outbox is never given back",
        _OUTBOX,
        "        self.gauge.add(-count, -size)\n        if not event.refusals:",
        "        if not event.refusals:",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "filtered rows are never settled",
        _OUTBOX,
        "self._sent[token], self._sizes[token] = going + _filtered(rows), _size(going)",
        "self._sent[token], self._sizes[token] = going, _size(going)",
        (_AT_LEAST_ONCE,),
    ),
    Mistake(
        "an aborted transaction is not sent anew",
        _OUTBOX,
        "            self._held.extendleft(reversed(again))\n",
        "",
        (_EXACTLY_ONCE,),
    ),
    Mistake(
        "an aborted transaction is sent anew backwards",
        _OUTBOX,
        "extendleft(reversed(again))",
        "extendleft(again)",
        (_EXACTLY_ONCE,),
    ),
    Mistake(
        "rows of a lost partition stay in the transaction",
        _OUTBOX,
        "            self._broken = True\n",
        "            pass\n",
        (
            "tests/property/test_exactly_once.py::test_d2_d6_a_partition_that_is_lost_is_in_no_transaction_and_in_none_that_is_sent_anew",
        ),
    ),
    Mistake(
        "what is sent anew has rows of lost partitions",
        _OUTBOX,
        "(kept := _without(rows, self._closed))",
        "(kept := rows)",
        (
            "tests/property/test_exactly_once.py::test_d2_d6_a_partition_that_is_lost_is_in_no_transaction_and_in_none_that_is_sent_anew",
        ),
    ),
    Mistake(
        "a transaction is settled before it is committed",
        _OUTBOX,
        "        return rows if event.committed else ()",
        "        return rows",
        (_EXACTLY_ONCE,),
    ),
    Mistake(
        "dead letters of records before an Explode are numbered as children",
        "streamml/batch/microbatch.py",
        "np.concatenate([part._numbers for part in parts])",
        "np.concatenate([part.children for part in parts])",
        (
            "tests/testing/test_driver.py"
            "::test_d3_the_id_of_a_record_that_was_never_exploded_is_the_same_beside_those_that_were",
        ),
    ),
)
