"""The mistakes: what would be written instead, and which tests must notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


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


_ENGINE: Final = "streamml/engine/engine.py"
_DRIVER: Final = "tests/testing/test_driver.py"

MISTAKES: Final = (
    Mistake(
        "an offset is committed before there is a result",
        "streamml/engine/ledger.py",
        "        return self._position\n\n    @property\n    def unsettled",
        "        return self._entries[-1].end if self._entries else self._position\n\n    @property\n    def unsettled",
        (f"{_DRIVER}::test_d1_nothing_is_committed_before_it_has_ended",),
    ),
    Mistake(
        "a position moves past a record that is not settled",
        "streamml/engine/ledger.py",
        "            if entry.unsettled:\n                break\n",
        "            if entry.unsettled:\n                continue\n",
        ("tests/property/test_ledger.py::test_d1_position_is_behind_every_unsettled_record",),
    ),
    Mistake(
        "a record may be settled twice",
        "streamml/engine/ledger.py",
        "                if entry.unsettled < 0:\n",
        "                if False:\n",
        (
            "tests/property/test_ledger.py::test_d1_settling_twice_is_a_violation_also_behind_records_that_are_not_settled",
        ),
    ),
    Mistake(
        "the position after a stop is committed without waiting for what is on its way",
        _ENGINE,
        "if self._stop is None or (self._gauge.rows and now < self._stop.deadline):",
        "if self._stop is None:",
        (f"{_DRIVER}::test_l3_a_shutdown_finishes_what_fits",),
    ),
    Mistake(
        "the epoch is not checked: results of an earlier assignment count",
        "streamml/engine/assignment.py",
        "            del self._by_number[slot.number]\n",
        "            pass\n",
        ("tests/property/test_engine.py::test_d6_results_of_a_lost_assignment_are_never_sent",),
    ),
    Mistake(
        "a commit moves the next owner of a partition back",
        "streamml/runtime/reader.py",
        "if where in self._ours and to >= self._ours[where]}",
        "}",
        (
            "tests/unit/runtime/test_reader.py"
            "::test_d6_a_commit_asked_for_while_a_partition_drains_does_not_move_its_next_owner_back",
        ),
    ),
    Mistake(
        "the sequencer is bypassed",
        _ENGINE,
        "released.extend(slot.sequencer.offer(pieces))",
        "released.extend(pieces)",
        ("tests/property/test_exactly_once.py::test_d2_every_record_ends_once_and_positions_are_its_cut",),
    ),
    Mistake(
        "offsets are committed outside of the transaction",
        _ENGINE,
        "if self._config.exactly_once or now < self._commit_at:",
        "if now < self._commit_at:",
        ("tests/property/test_exactly_once.py::test_d2_every_record_ends_once_and_positions_are_its_cut",),
    ),
    Mistake(
        "a transaction with a refused record is sent anew as it was",
        "streamml/engine/outbox.py",
        "self._sent[event.token] = (*rest, *letters)",
        "pass",
        (
            "tests/unit/engine/test_outbox.py::test_d2_a_transaction_with_a_refused_record_is_tried_again_with_its_dead_letter",
        ),
    ),
    Mistake(
        "the client commits on its own what it has handed over",
        "streamml/adapters/kafka/source.py",
        '    "enable.auto.commit": False,\n    "enable.auto.offset.store": False,\n',
        '    "enable.auto.commit": True,\n    "enable.auto.offset.store": True,\n',
        ("tests/conformance/test_sources.py::TestKafka::test_without_a_commit_the_next_member_reads_again",),
    ),
    Mistake(
        "settings may turn the client's own offset store on",
        "streamml/settings/settings.py",
        '    "enable.auto.offset.store": "offsets are committed only behind acknowledged results",\n',
        "",
        ("tests/unit/settings/test_settings.py::test_what_adapters_hold_fixed_no_setting_may_change",),
    ),
    Mistake(
        "an offset below retention is a silent jump",
        "streamml/adapters/kafka/source.py",
        '"auto.offset.reset": "error"',
        '"auto.offset.reset": "latest"',
        ("tests/conformance/test_sources.py::TestKafka::test_an_offset_below_retention_stops_the_worker",),
    ),
    Mistake(
        "the producer's callback swallows what it was told",
        "streamml/adapters/kafka/sink.py",
        "        if error.code() not in _REFUSALS:\n            raise FatalError(",
        "        if error.code() not in _REFUSALS:\n            return\n            raise FatalError(",
        ("tests/conformance/test_sinks.py::test_kafka_a_topic_that_is_not_there_stops_the_worker",),
    ),
    Mistake(
        "the end of the source's thread is told to nobody",
        "streamml/runtime/reader.py",
        'self._inbox.put(Crash.of(error, "the source\'s thread"))',
        'Crash.of(error, "the source\'s thread")',
        ("tests/unit/runtime/test_reader.py::test_what_the_source_raises_is_heard_of",),
    ),
    Mistake(
        "a dead letter is not counted",
        _ENGINE,
        "letters += len(block) if block.kind is Kind.DEAD_LETTER else 0",
        "letters += 0",
        (f"{_DRIVER}::test_e4_too_many_dead_letters_stop_the_worker",),
    ),
    Mistake(
        "bisection drops the neighbours of a failing row",
        "streamml/stages/isolate.py",
        "waiting += [range(half, rows.stop), range(rows.start, half)]",
        "waiting += [range(rows.start, half)]",
        ("tests/unit/stages/test_run_model.py::test_e2_only_the_rows_that_it_raises_for_are_dead_letters",),
    ),
    Mistake(
        "a batch for which there is too little memory is tried again as it was",
        "streamml/stages/isolate.py",
        "return isinstance(error, ModelOutOfMemory) or not isinstance(",
        "return not isinstance(",
        ("tests/unit/stages/test_run_model.py::test_m5_out_of_memory_halves_the_batch",),
    ),
    Mistake(
        "an open breaker lets everybody through",
        "streamml/engine/breaker.py",
        "            return wait\n",
        "            return 0.0\n",
        (
            "tests/property/test_breaker.py::test_e1_an_open_breaker_lets_one_through_per_interval_and_closes_on_success",
        ),
    ),
    Mistake(
        "retries have no budget",
        "streamml/engine/retry.py",
        "return max(0.0, -self._saved / self._free_per_s)",
        "return 0.0",
        ("tests/unit/engine/test_retries.py::test_e1_retries_of_a_worker_are_a_share_of_its_first_tries",),
    ),
    Mistake(
        "versions of a feature set share their keys, so that a reply mixes two while one is loaded",
        "streamml/adapters/redis/layout.py",
        'return f"streamml:{set_name}:{version}:".encode()',
        'return f"streamml:{set_name}:all:".encode()',
        (
            "tests/integration/test_feature_loads.py"
            "::test_f4_while_100_000_rows_are_loaded_lookups_see_the_version_before_and_then_all_of_the_new_one",
        ),
    ),
    Mistake(
        "parts of a feature's key run together",
        "streamml/adapters/redis/layout.py",
        "pieces += (map(_LENGTH, map(len, part)), part)",
        "pieces += (part,)",
        ("tests/property/test_redis_layout.py::test_f1_one_text_cut_at_different_places_gives_different_keys",),
    ),
    Mistake(
        "a feature from the row's future passes as fresh",
        "streamml/stages/freshness.py",
        "    found[present & (age < 0)] = State.FROM_FUTURE\n",
        "",
        ("tests/unit/stages/test_lookup.py::test_f2_f3_missing_stale_and_future_values_become_defaults_and_say_so",),
    ),
    Mistake(
        "rows that all get defaults are scored in silence",
        "streamml/stages/freshness.py",
        "if seen >= self.window and without > self.max_ratio * seen:",
        "if False:",
        (
            "tests/unit/stages/test_lookup.py"
            "::test_f3_an_empty_load_is_not_scored_in_silence_and_a_good_one_opens_the_way",
        ),
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
        (f"{_DRIVER}::test_b2_a_slow_model_stops_polling_at_the_budget",),
    ),
    Mistake(
        "rows wait until a batch is full",
        "streamml/engine/batcher.py",
        "        if not queued_rows:\n",
        "        if queued_rows < self.max_rows:\n",
        (f"{_DRIVER}::test_m1_a_slow_model_makes_larger_batches_and_none_waits_for_a_timer",),
    ),
    Mistake(
        "a dead letter quotes what the model said of the row's values",
        "streamml/stages/model.py",
        'said = str(error) if isinstance(error, ModelRejected) else f"The model raised {type(error).__name__}."',
        "said = str(error)",
        ("tests/unit/stages/test_run_model.py::test_what_an_exception_says_of_the_values_is_not_told",),
    ),
    Mistake(
        "a secret is printed with the settings",
        "streamml/settings/settings.py",
        '        return "****"\n',
        "        return value\n",
        ("tests/unit/settings/test_settings.py::test_secrets_are_masked",),
    ),
    Mistake(
        "secret fields of a dead letter are shown",
        "streamml/ops/dead_letters.py",
        "    if not secret:\n        return letter\n",
        "    if True:\n        return letter\n",
        ("tests/unit/ops/test_dead_letters.py::test_e5_nothing_secret_of_a_record_is_shown_tombstones_too",),
    ),
    Mistake(
        "a pickle is taken for a model and loaded",
        "streamml/adapters/models/onnx_session.py",
        "    runtime = _runtime()\n",
        '    if path.read_bytes()[:1] == b"\\x80":\n'
        '        return __import__("pickle").loads(path.read_bytes())\n'
        "    runtime = _runtime()\n",
        ("tests/conformance/test_models.py::TestOnnxModelOnly::test_pickle_is_refused_and_does_not_run",),
    ),
    Mistake(
        "a record that repeats a key passes",
        "streamml/adapters/codecs/json.py",
        "        audit = partial(_flaws_of_suspects, QuoteFloor(contract.fields))\n",
        "        audit = _not_utf8\n",
        ("tests/property/test_json_codec.py::test_exactly_the_records_that_repeat_a_key_are_refused_for_it",),
    ),
)
