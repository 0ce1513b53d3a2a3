"""No secret and nothing of a record in what a user sees: logs, errors, settings, metrics, lists of dead letters."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as client
from confluent_kafka import Producer

from streamml.batch.column import ColumnType
from streamml.compose.locate import locate_topology
from streamml.ops.acls import least_rights
from streamml.ops.embedded.process import free_port
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.features import load_file
from streamml.ops.topics import create_topics
from streamml.ports.feature_store import FeatureSchema
from streamml.settings.settings import Settings
from tests.integration.secured import KEY_PASSWORD, PASSWORD, USER, Secured
from tests.integration.test_command_line import Shell

pytestmark = pytest.mark.integration
REDIS_PASSWORD = "redis-hunter2"
PAYLOAD = "payload-hunter2"
SECRET = "hunter2"


class Watched(Shell):
    """A shell that keeps all that was printed."""

    said = ""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.started.append(super().start(*arguments))
        return self.started[-1]

    def end(self) -> None:
        """Nothing outlives its test, also one that failed."""
        for process in self.started:
            process.kill()
            process.communicate()

    def say(self, *arguments: str) -> str:
        """Run a command to its end, however it ends; everything that it printed."""
        out, err = self.start(*arguments).communicate(timeout=60)
        self.said += out + err
        return out + err


@pytest.fixture
def shell(secured: Secured, redis_server: EmbeddedRedis, tmp_path: Path) -> Iterator[Watched]:
    """A user who logs in everywhere, with the rights that are printed."""
    shell = Watched(tmp_path, secured.broker.bootstrap_servers, redis_server.url)
    topology = locate_topology(str(tmp_path / "payments.py")).found
    rights = {one.purpose: one for one in least_rights(topology, Settings(), USER)}
    secured.grant([*rights["worker"].kafka, *rights["dlq"].kafka])
    user = f"user-{uuid.uuid4().hex[:8]}"
    with client.Redis(port=redis_server.port) as admin:
        words = (rights["worker"].redis or "").replace("PASSWORD", REDIS_PASSWORD).split()
        admin.execute_command(*words[:2], user, *words[3:])
    shell.environment |= {
        "STREAMML_BROKERS": secured.security.sasl_servers,
        "STREAMML_REDIS_URL": f"redis://{user}:{REDIS_PASSWORD}@127.0.0.1:{redis_server.port}/0",
        "STREAMML_REDIS_TIMEOUT_MS": "20000",
        "STREAMML_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "STREAMML_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "STREAMML_KAFKA_SASL_USERNAME": USER,
        "STREAMML_KAFKA_SASL_PASSWORD": PASSWORD,
        "STREAMML_KAFKA_SSL_CA_LOCATION": str(secured.authority.file),
        "STREAMML_KAFKA_SSL_CERTIFICATE_LOCATION": str(secured.certificate.chain),
        "STREAMML_KAFKA_SSL_KEY_LOCATION": str(secured.certificate.key),
        "STREAMML_KAFKA_SSL_KEY_PASSWORD": KEY_PASSWORD,
    }
    yield shell
    shell.end()
    with client.Redis(port=redis_server.port) as admin:
        admin.acl_deluser(user)


def prepared(shell: Watched, secured: Secured, redis_server: EmbeddedRedis) -> None:
    """Topics and features, made by those who may."""
    topology = locate_topology(str(shell.folder / "payments.py")).found
    create_topics(topology, Settings(brokers=secured.broker.bootstrap_servers), 2, -1)
    file = shell.folder / "accounts.csv"
    file.write_text("account,event_time,mean\na1,1970-01-01T00:00:00Z,0.5\n")
    schema = FeatureSchema(shell.name, (("mean", ColumnType.parse("f4")),))
    load_file(file, schema, ("account",), url=redis_server.url)


def records(shell: Watched) -> int:
    """Write records that hold the payload: a good one, and one of each kind that is refused; how many."""
    good = {"id": PAYLOAD, "account": PAYLOAD, "amount": 1.0}
    refused = [{**good, "amount": PAYLOAD}, {PAYLOAD: 1}, PAYLOAD]
    values = [json.dumps(one).encode() for one in (good, *refused)] + [b"{" + PAYLOAD.encode(), PAYLOAD.encode()]
    producer = Producer({"bootstrap.servers": shell.brokers})
    for value in values:
        producer.produce(f"{shell.name}.in", value, PAYLOAD, headers=[("h", PAYLOAD.encode())])
    assert producer.flush(30) == 0
    return len(values)


def metrics_of(process: subprocess.Popen[str], port: int, consumed: int) -> str:
    """The page as soon as so many records are settled."""
    while process.poll() is None:
        try:
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        except OSError:
            time.sleep(0.02)
            continue
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("streamml"))
        done = {name: float(value) for name, value in lines}
        letters = sum(value for name, value in done.items() if name.startswith("streamml_dead_letters_total"))
        if letters + done.get("streamml_predictions_total", 0) == consumed:
            return str(page)
    raise AssertionError(process.communicate()[1])


def test_no_secret_is_seen_while_all_is_well(shell: Watched, secured: Secured, redis_server: EmbeddedRedis) -> None:
    prepared(shell, secured, redis_server)
    consumed, port = records(shell), free_port()
    process = shell.start("-vv", "run", "payments.py", "--metrics-port", str(port), "--json")
    try:
        shell.said += metrics_of(process, port, consumed)
    finally:
        process.send_signal(signal.SIGTERM)
        shell.said += "".join(process.communicate(timeout=30))
    assert process.returncode == 0
    assert '"dead_letters": 5' in shell.said
    commands = ("check payments.py --connect", "config show", "config show --json", "doctor --json", "acls payments.py")
    asked = [shell.start("-vv", *command.split()) for command in (*commands, "dlq list payments.py --json")]
    listed = shell.say("-vv", "dlq", "list", "payments.py")
    for process in asked:
        shell.said += "".join(process.communicate(timeout=60))
    assert [process.returncode for process in asked] == [0] * 6
    assert "DecodeError" in listed
    assert SECRET not in shell.said, lines_with_secrets(shell.said)


WRONG = (
    {"STREAMML_KAFKA_SASL_PASSWORD": "not-hunter2"},
    {"STREAMML_KAFKA_SSL_KEY_PASSWORD": "not-hunter2"},
    {"STREAMML_KAFKA_SASL_PASSWORDS": "hunter2"},
    {"STREAMML_REDIS_URL": "redis://worker:no@hunter2/x:y@127.0.0.1:1/0"},
    {"STREAMML_REDIS_TIMEOUT_MS": "hunter2"},
    {"STREAMML_KAFKA_DEBUG": "security,conf,broker", "STREAMML_KAFKA_SASL_PASSWORD": "not-hunter2"},
)


def test_no_secret_is_seen_in_an_error(shell: Watched) -> None:
    whole = shell.environment
    asked = []
    for wrong in WRONG:
        shell.environment = {**whole, **wrong}
        asked.append(shell.start("-vv", "check", "payments.py", "--connect"))
    for wrong, process in zip(WRONG, asked, strict=True):
        told = "".join(process.communicate(timeout=60))
        assert process.returncode == 2, (wrong, told)
        assert SECRET not in told, (wrong, lines_with_secrets(told))


def lines_with_secrets(said: str) -> list[str]:
    return [line for line in said.splitlines() if SECRET in line]
