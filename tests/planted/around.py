"""Mistakes around the engine: clients, threads, steps, features, settings, what is shown."""

from __future__ import annotations

from typing import Final

from tests.planted.mistake import Mistake

MISTAKES: Final = (
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
        "an answer to an earlier revoke is taken for one to this one",
        "streamml/runtime/reader.py",
        "            if answer.number == self._revokes:\n",
        "            if answer.partitions == partitions:\n",
        ("tests/unit/runtime/test_reader.py::test_d6_an_answer_to_an_earlier_revoke_is_no_answer_to_this_one",),
    ),
    Mistake(
        "a commit whose answer is lost counts as not made",
        "streamml/adapters/kafka/transactions.py",
        "        committed = bool(ending.positions) and self._reached(ending.positions)\n",
        "        committed = False\n",
        ("tests/integration/test_transactions.py::test_d2_a_commit_whose_answer_is_lost_is_made_once",),
    ),
    Mistake(
        "the client commits on its own what it has handed over",
        "streamml/adapters/kafka/membership.py",
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
        "streamml/adapters/kafka/membership.py",
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
        "the brake is released by a restart",
        "streamml/runtime/worker.py",
        "            self._tell(GroupTold(state), self._clock.now())\n",
        "",
        ("tests/unit/runtime/test_pause.py::test_e4_a_worker_that_starts_in_a_pause_takes_nothing",),
    ),
    Mistake(
        "the end of the source's thread is told to nobody",
        "streamml/runtime/reader.py",
        "            self._inbox.put(Crash.of(error, _WHERE))",
        "            Crash.of(error, _WHERE)",
        ("tests/unit/runtime/test_reader.py::test_what_the_source_raises_is_heard_of",),
    ),
    Mistake(
        "nobody polls while a quick stage hangs",
        "streamml/runtime/reader.py",
        "return self._left.wait(_STANDS_BACK_S) or self._own_turns == before",
        "return self._left.wait(_STANDS_BACK_S)",
        ("tests/unit/runtime/test_turns.py::test_b1_polls_go_on_while_a_stage_keeps_the_workers_thread",),
    ),
    Mistake(
        "nobody reads ahead in a backlog",
        "streamml/runtime/reader.py",
        "if not self._opened or self._latest_rows >= _BACKLOG_ROWS:",
        "if not self._opened:",
        ("tests/unit/runtime/test_turns.py::test_a_backlog_is_read_ahead_by_the_source_thread",),
    ),
    Mistake(
        "a partition that goes in a turn of the worker's own thread is not drained",
        "streamml/runtime/reader.py",
        "if self._go_on is not None and (last := self._go_on()) is not None:",
        "if self._go_on is not None and (last := {}) is not None:",
        (
            "tests/unit/runtime/test_turns.py"
            "::test_d5_a_partition_that_goes_in_a_turn_of_the_workers_own_thread_is_drained",
        ),
    ),
    Mistake(
        "what fails while a partition drains is told to nobody",
        "streamml/runtime/worker.py",
        """            self._inbox.put(Crash.of(error, "the worker's thread"))\n""",
        "",
        ("tests/unit/runtime/test_turns.py::test_what_fails_while_a_partition_drains_ends_the_worker_with_it",),
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
        "streamml/adapters/redis/keys.py",
        'return f"streamml:{set_name}:{version}:".encode()',
        'return f"streamml:{set_name}:all:".encode()',
        (
            "tests/integration/test_feature_loads.py"
            "::test_f4_while_100_000_rows_are_loaded_lookups_see_the_version_before_and_then_all_of_the_new_one",
        ),
    ),
    Mistake(
        "parts of a feature's key run together",
        "streamml/adapters/redis/keys.py",
        "pieces += (map(_LENGTH, map(len, part)), part)",
        "pieces += (part,)",
        ("tests/property/test_redis_layout.py::test_f1_one_text_cut_at_different_places_gives_different_keys",),
    ),
    Mistake(
        "a feature from the row's future passes as fresh",
        "streamml/stages/freshness.py",
        "known = present & (event_time <= row_time)",
        "known = present",
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
        "    runtime = onnxruntime()\n",
        '    if path.read_bytes()[:1] == b"\\x80":\n'
        '        return __import__("pickle").loads(path.read_bytes())\n'
        "    runtime = onnxruntime()\n",
        ("tests/conformance/test_models.py::TestOnnxModelOnly::test_pickle_is_refused_and_does_not_run",),
    ),
    Mistake(
        "shapes share one CUDA graph",
        "streamml/adapters/models/onnx_bound.py",
        "number = len(self._buffers) + 1",
        "number = 1",
        (
            "tests/conformance/test_onnx_graphs.py"
            "::test_each_rung_has_a_number_and_a_place_of_its_own_and_other_shapes_have_none",
        ),
    ),
    Mistake(
        "what is computed on the CPU is answered from the time of a capture",
        "streamml/adapters/models/onnx_graphs.py",
        "            why = None if problems else obstacle(session, signature, settings)\n",
        "            why = None\n",
        (
            "tests/conformance/test_onnx_graphs.py"
            "::test_what_would_be_answered_from_the_time_of_the_capture_is_not_captured",
        ),
    ),
    Mistake(
        "a replay is only tried with the values of its capture",
        "streamml/adapters/models/onnx_bound.py",
        "(np.zeros_like if column.any() else np.ones_like)(column)",
        "np.zeros_like(column)",
        ("tests/conformance/test_onnx_graphs.py::test_a_graph_that_does_not_read_its_inputs_is_not_used",),
    ),
    Mistake(
        "a graph is captured while other models are at work",
        "streamml/adapters/models/onnx_bound.py",
        "                self._captured = _never\n",
        "",
        ("tests/conformance/test_onnx_graphs.py::test_nothing_is_captured_after_a_model_refused_rows",),
    ),
    Mistake(
        "a batch has to answer as much as the shape's last one",
        "streamml/adapters/models/onnx_bound.py",
        "        if buffers.graph == _NO_GRAPH:\n",
        "        if False:\n",
        ("tests/conformance/test_models.py::TestOnnxModelOnly::test_sizes_of_outputs_may_depend_on_values",),
    ),
    Mistake(
        "a record that repeats a key passes",
        "streamml/adapters/codecs/json.py",
        "        audit = partial(_flaws_of_suspects, QuoteFloor(contract.fields))\n",
        "        audit = _not_utf8\n",
        ("tests/property/test_json_codec.py::test_exactly_the_records_that_repeat_a_key_are_refused_for_it",),
    ),
    Mistake(
        "a row counts as settled before Redis has its prediction, where nothing else is written",
        "streamml/adapters/redis/latest_sink.py",
        "            if isinstance(ended, Delivered) and ended.token in self._storing:\n",
        "            if False:\n",
        ("tests/testing/test_latest.py::test_d1_nothing_is_committed_and_little_taken_while_redis_is_away",),
    ),
    Mistake(
        "in Redis an older child replaces a newer one",
        "streamml/adapters/redis/latest.py",
        "offset_low, partition, child, revision}",
        "offset_low, partition, revision, child}",
        ("tests/integration/test_latest_layout.py::test_d3_redis_keeps_what_python_says_is_newer",),
    ),
    Mistake(
        "predictions that belong to Redis alone are written to a topic as well",
        "streamml/adapters/redis/latest_sink.py",
        "        others = [_emptied(block) if block.topic == self._topic else block for block in blocks]\n",
        "        others = list(blocks)\n",
        (
            "tests/integration/test_latest_corrected.py"
            "::test_d3_what_is_redriven_and_what_is_published_reach_redis_and_a_replay_does_not",
        ),
    ),
)
