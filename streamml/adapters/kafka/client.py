"""What all clients of the broker share: errors in our words, and logs in ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from confluent_kafka import KafkaError, KafkaException, Message

from streamml.errors import FatalError, Fenced, OffsetOutOfRange, SettingsError, SourceUnavailable, StreamMLError
from streamml.ports.source import Headers

LOG: Final = logging.getLogger("streamml.kafka")
_NO_RIGHTS: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
)
UNREADABLE_HEADERS: Final = "streamml.unreadable_headers"
T = TypeVar("T")


def opened(make: Callable[[dict[str, Any]], T], config: Mapping[str, Any]) -> T:
    """A client of this configuration, its log lines in the logger ``streamml.kafka``.

    Raises:
        SettingsError: librdkafka refuses a property.
    """
    try:
        return make({**config, "logger": LOG})
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
        brokers: whom the call asks, where the first answer is still to come; see `error_of`.
    """

    def __init__(self, brokers: str | None = None) -> None:
        self._brokers = brokers

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KafkaException):
            raise error_of(error.args[0], self._brokers) from error


def error_of(error: KafkaError, brokers: str | None = None) -> StreamMLError:
    """What happens next because of an error of the client.

    Args:
        brokers: addresses that were asked for the first time, as these may be wrong; a broker that answered before is only
            away.
    """
    text = error.str()
    code = error.code()
    if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        return OffsetOutOfRange(
            f"The committed offset is no longer on the broker: {text}. Retention or truncation removed it. "
            "Reset the group's offsets to the earliest or the latest record, knowing what is skipped, then start again."
        )
    # A client that failed for good says once, by poll, what is behind _FATAL; other calls only say _FATAL.
    if code in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED) or (code == KafkaError._FATAL and "fenced" in text):
        return Fenced(f"Another process took over this worker's identity: {text}.")
    if code in _NO_RIGHTS:
        return FatalError(
            f"The broker refuses this client: {text}. See to its credentials and rights, then start again."
        )
    if error.fatal() or text.startswith("Fatal error"):
        return FatalError(f"The broker client cannot go on: {text}.")
    if brokers is None:
        return SourceUnavailable(f"The broker did not answer: {text}.")
    return SourceUnavailable(
        f"The broker at {brokers} did not answer: {text}. Name yours with --brokers or STREAMML_BROKERS, or start one for "
        "development with `streamml dev up`."
    )
