"""Mistakes of the near cache: each serves a value for longer than it may, or more than it may keep."""

from __future__ import annotations

from typing import Final

from tests.planted.mistake import Mistake

_TRACKING: Final = "streamml/adapters/redis/tracking.py"
_STORE: Final = "streamml/adapters/redis/near_store.py"
_NEAR: Final = "streamml/adapters/redis/near.py"
_UNIT: Final = "tests/unit/adapters/redis/test_near.py::test_f7_"
_STORE_TEST: Final = "tests/unit/adapters/redis/test_near_store.py::test_f7_"
_UNDER_FAULTS: Final = ("tests/property/test_near_cache.py::TestF7NearCacheUnderFaults::runTest",)

MISTAKES: Final = (
    Mistake(
        "a connection is taken to have been alive when its answer came, not when it was asked",
        _TRACKING,
        "        self.confirmed_at = asked_at\n",
        "        self.confirmed_at = self._clock.now()\n",
        (_STORE_TEST + "an_answer_says_nothing_of_what_changed_while_it_was_under_way",),
    ),
    Mistake(
        "values outlive the connection that watched them",
        _STORE,
        "                near.forget_all()\n            self._tracking.connect()",
        "                near.sure = False\n            self._tracking.connect()",
        _UNDER_FAULTS,
    ),
    Mistake(
        "a silent connection is trusted for ever",
        _STORE,
        "            self._tracking.confirm()\n        for key",
        "            pass\n        for key",
        (*_UNDER_FAULTS, _STORE_TEST + "a_sign_of_life_is_asked_for_once_in_the_bound"),
    ),
    Mistake(
        "what is told is put aside and not heeded",
        _TRACKING,
        "        self._session.told.clear()\n        return news\n",
        "        self._session.told.clear()\n        return []\n",
        (*_UNDER_FAULTS, _STORE_TEST + "a_change_that_was_told_shows_at_the_next_lookup"),
    ),
    Mistake(
        "a change told within a reply shifts the values behind it",
        _TRACKING,
        "        if set(map(type, values)) <= _VALUES:\n            return values\n",
        "        if values:\n            return values\n",
        ("tests/unit/adapters/redis/test_near_store.py::test_a_change_that_is_told_within_a_reply_shifts_no_value",),
    ),
    Mistake(
        "a value that has changed is there to be found",
        _NEAR,
        "            del self._places[self._keys[place]]\n",
        "",
        (*_UNDER_FAULTS, _UNIT + "what_is_found_is_what_was_put_last_and_never_more_than_may_be"),
    ),
    Mistake(
        "a flushed database leaves the cache as it was",
        _STORE,
        "near.forget_all() if key is None else near.forget(key)",
        "key is None or near.forget(key)",
        _UNDER_FAULTS,
    ),
    Mistake(
        "a new version is read with the values of the one before",
        _NEAR,
        "            self.rows.clear()\n            self._prefix",
        "            self._prefix",
        _UNDER_FAULTS,
    ),
    Mistake(
        "that the pointer has moved is not heeded",
        _NEAR,
        "        if key == self.layout.pointer:\n            self.sure = False\n",
        "        if key == self.layout.pointer:\n            pass\n",
        (_STORE_TEST + "another_version_shows_when_it_is_told_or_the_bound_is_over",),
    ),
    Mistake(
        "values are read without being watched",
        _TRACKING,
        'pack("CLIENT", "CACHING", "YES"), pack("MGET", *watched)',
        'pack("PING"), pack("MGET", *watched)',
        _UNDER_FAULTS,
    ),
    Mistake(
        "more is kept than declared",
        _NEAR,
        "self._make_room(self.size_bytes + added - self._max_bytes)",
        "self._make_room(self.size_bytes - self._max_bytes)",
        (_UNIT + "what_is_found_is_what_was_put_last_and_never_more_than_may_be",),
    ),
    Mistake(
        "a row that is used all the time goes like any other",
        _NEAR,
        "(self._sizes[passed] > 0) & ~self._lately[passed]",
        "self._sizes[passed] > 0",
        (_UNIT + "what_is_used_all_the_time_stays",),
    ),
    Mistake(
        "the index over the rows is not counted",
        _NEAR,
        "_ENTRY_BYTES: Final = 220",
        "_ENTRY_BYTES: Final = 0",
        (_UNIT + "the_bytes_that_are_counted_are_no_less_than_those_that_are_taken",),
    ),
)
