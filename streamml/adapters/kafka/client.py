"""What all clients of the broker share: errors in our words, and logs in ours."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar, cast

from confluent_kafka import KafkaError, KafkaException, Message

from streamml.errors import FatalError, Fenced, OffsetOutOfRange, SettingsError, SourceUnavailable, StreamMLError
from streamml.ports.source import Headers

LOG: Final = logging.getLogger("streamml.kafka")
_SAID: Final = logging.getLogger("streamml.login")
_NO_RIGHTS: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "a topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "its consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "its transactional id",
}
OUT_OF_RANGE: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)
_PASSING: Final = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)
UNREADABLE_HEADERS: Final = "streamml.unreadable_headers"
_WARN_EVERY_S: Final = 60.0
_TURN_S: Final = 1.0
_STATE: Final = re.compile(r" \(after \d+ms in state \w+\)$")
OUTSIDE_OF_GROUPS: Final = {
    # The client wants a name; nothing is ever asked of the group.
    "group.id": "streamml-tail",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 10,
}
"""Properties of a consumer that is assigned its partitions and commits nothing."""
T = TypeVar("T")


class Trouble:
    """Why a client has no connection.

    librdkafka says that to a callback only; calls just run out of time. A client that nobody asks (one that polls) warns
    by itself, at most once a minute.
    """

    def __init__(self, *, warn: bool = False) -> None:
        self._warn = warn
        self._warned_at = float("-inf")
        self._refused: KafkaError | None = None
        self._nobody_left = False

    def __call__(self, error: KafkaError) -> None:
        """The callback."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._nobody_left = True
        elif _is_about_login(error):
            self._refused = error
            if self._warn and time.monotonic() - self._warned_at > _WARN_EVERY_S:
                self._warned_at = time.monotonic()
                _SAID.warning("%s", login_refused(error))

    def check(self) -> None:
        """Raises where no broker is left, and one would not have this client, or the client not the broker.

        Raises:
            FatalError: with the reason.
        """
        if self._nobody_left and self._refused is not None:
            raise login_refused(self._refused)


def opened(make: Callable[[dict[str, Any]], T], config: Mapping[str, Any], trouble: Trouble | None = None) -> T:
    """A client of this configuration, its log lines in the logger ``streamml.kafka``.

    Args:
        trouble: hears why there is no connection; ``None``: the log does.

    Raises:
        SettingsError: librdkafka refuses a property.
    """
    try:
        return make({**config, "logger": LOG, "error_cb": trouble or Trouble(warn=True)})
    except (KafkaException, TypeError, ValueError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        raise SettingsError(
            f"librdkafka refuses the settings under [kafka]: {reason}. Correct or remove the property."
        ) from error


def headers_of(message: Message) -> Headers:
    """A record's headers.

    The client cannot give headers of which a name is not UTF-8, which a broker takes; `UNREADABLE_HEADERS` stands for them.
    """
    try:
        return cast(Headers, message.headers() or [])
    except (SystemError, UnicodeDecodeError):
        return [(UNREADABLE_HEADERS, None)]


class translated:
    """The client's exceptions as ours, around a call.

    Args:
        brokers: whom the call asks; see `error_of`.
        trouble: has heard why there is no connection, if that is it.
        met: see `error_of`.
    """

    def __init__(self, brokers: str | None = None, trouble: Trouble | None = None, *, met: bool = False) -> None:
        self._brokers = brokers
        self._trouble = trouble
        self._met = met

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SystemError):
            # The client has raised a fatal error already when it calls back with reports, which stumble over it.
            error = error.__cause__
        if isinstance(error, KafkaException):
            if self._trouble is not None:
                self._trouble.check()
            raise error_of(error.args[0], self._brokers, met=self._met) from error


def list_topics(client: Any, trouble: Trouble, timeout_s: float, topic: str | None = None) -> Any:
    """What a client knows of topics and brokers. It is asked in short turns, and listened to in between: a refused login
    ends in no answer at all.

    Raises:
        KafkaException: nobody answers.
        FatalError: a broker refuses the login, or cannot be trusted.
    """
    ask = partial(client.list_topics, topic) if topic else client.list_topics
    for _ in range(round(timeout_s / _TURN_S) - 1):
        try:
            return ask(timeout=_TURN_S)
        except KafkaException:
            # This brings no record, as nothing is assigned yet; it lets the client say what it has to say.
            client.poll(0)
            trouble.check()
    return ask(timeout=_TURN_S)


def _is_about_login(error: KafkaError) -> bool:
    if error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        return True
    # A broker that goes down in the middle of a handshake ends it, too; only what is about certificates will not pass.
    return error.code() in (KafkaError._SSL, KafkaError._TRANSPORT) and "certificate" in error.str()


def login_refused(error: KafkaError) -> FatalError:
    """A broker that would not have this client, or the client not the broker, and what to look at."""
    said = _STATE.sub("", error.str())
    if "could not be verified" in said or "verify failed" in said:
        look = "Nobody that this client trusts has issued the broker's certificate; see to ssl.ca.location"
    elif "certificate" in said:
        look = (
            "The broker does not take this client's certificate; see to ssl.certificate.location and ssl.key.location"
        )
    else:
        look = "The broker refuses the login; see to sasl.mechanism, sasl.username and sasl.password"
    return FatalError(f"{look} under [kafka], then start again. It says: {said}.")


def passes(error: KafkaError) -> bool:
    """Whether the client goes on by itself."""
    return error.code() in _PASSING or (error.retriable() and not error.fatal())


def error_of(error: KafkaError, brokers: str | None = None, *, met: bool = False) -> StreamMLError:
    """What happens next because of an error of the client.

    Args:
        brokers: addresses that were asked.
        met: whether one answered there before: it is only away; otherwise the addresses may be wrong.
    """
    text = error.str()
    code = error.code()
    if code in OUT_OF_RANGE:
        return OffsetOutOfRange(
            f"The committed offset is no longer on the broker: {text}. Retention or truncation removed it. `streamml offsets "
            "show TOPOLOGY` says where; reset it by `streamml offsets reset`, knowing what is skipped, then start again."
        )
    # A client that failed for good says once, by poll, what is behind _FATAL; other calls only say _FATAL.
    if code in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED) or (code == KafkaError._FATAL and "fenced" in text):
        return Fenced(f"Another process took over this worker's identity: {text}.")
    if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        return login_refused(error)
    if code in _NO_RIGHTS:
        return FatalError(
            f"The broker refuses this client: {text}. It lacks a right on {_NO_RIGHTS[code]}; `streamml check --connect` "
            "names it, `streamml acls` prints what a worker needs. Grant it, then start again; nothing is lost."
        )
    if error.fatal() or text.startswith("Fatal error"):
        return FatalError(f"The broker client cannot go on: {text}.")
    if brokers is None or met:
        return SourceUnavailable(f"The broker{f' at {brokers}' if brokers else ''} did not answer: {text}.")
    return SourceUnavailable(
        f"The broker at {brokers} did not answer: {text}. Name yours with --brokers or STREAMML_BROKERS, or start one for "
        "development with `streamml dev up`."
    )
