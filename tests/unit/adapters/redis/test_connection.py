"""What a URL of Redis names."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions

from streamml.adapters.redis.connection import Server, ServerAway
from streamml.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://h:1/2", ["h:1"]),
        ("redis://h", ["h:6379"]),
        ("rediss://u:p,w%40@h:1,g:2,f/0", ["h:1", "g:2", "f:6379"]),
        ("redis://[::1]:1,[::2]:3", ["::1:1", "::2:3"]),
    ],
)
def test_a_url_names_one_host_or_several(url: str, named: list[str]) -> None:
    assert [server.where for server in Server(url).named] == named


@pytest.mark.parametrize("url", ["redis://h:1,", "redis://,h:1", "redis://h:1,g:x", "redis://h,g:99999", "http://h,g"])
def test_a_host_that_is_none_is_told_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"host\[:port\]…") as told:
        Server(url.replace("//", "//u:hunter2@"))
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), "5s", None])
def test_a_timeout_that_is_none_is_told(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="a number of seconds above 0"):
        Server("redis://h", timeout)


def test_other_nodes_are_reached_in_the_same_way() -> None:
    server = Server("rediss://u:p@h:1,g:2/0", options={"ssl_ca_certs": "/ca.pem"})
    other = server.at(("n", 7))
    assert other.where == "n:7"
    kept = {name: other._arguments[name] for name in ("username", "password", "ssl_ca_certs")}
    assert kept == {"username": "u", "password": "p", "ssl_ca_certs": "/ca.pem"}
    assert other.named == (other,)
    assert server.where == "h:1"


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (exceptions.ConnectionError("refused"), True),
        (exceptions.TimeoutError("slow"), True),
        (exceptions.ClusterDownError("The cluster is down"), True),
        (exceptions.AuthenticationError("WRONGPASS"), False),
        (exceptions.ReadOnlyError("You can't write against a read only replica"), False),
        (exceptions.OutOfMemoryError("command not allowed"), False),
    ],
)
def test_a_server_that_is_away_is_told_apart_from_one_that_refuses(error: Exception, away: bool) -> None:
    assert isinstance(Server("redis://h").unavailable(error), ServerAway) is away
