"""``streamml acls``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options


@click.command("acls")
@click.argument("topology")
@click.option("--user", help="Name on Kafka and Redis; default: sasl.username, else the topology's name.")
@click.option("--redis-cluster", is_flag=True, help="Redis is a cluster; needless where its URL names several hosts.")
@settings_options
@json_option
def command(
    topology: str, user: str | None, redis_cluster: bool, as_json: bool, config: Path | None, **flags: Any
) -> None:
    """Print the least Kafka ACLs and the Redis ACL rule that TOPOLOGY's worker needs, and those of the tools around it.

    Nothing is connected to or changed. With client certificates, --user is the name that the broker makes of them.
    """
    from streamml.compose.locate import locate_topology
    from streamml.ops.acls import least_rights

    found = least_rights(locate_topology(topology).found, settings_of(config, **flags), user, cluster=redis_cluster)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    from streamml.cli.tables import print_table

    for one in found:
        title = f"{one.purpose} ({'needed' if one.needed else 'only if wanted'}): {one.why}"
        if one.kafka:
            rows = [
                (right.principal, right.operation, right.resource, right.name, right.pattern) for right in one.kafka
            ]
            print_table(title, ("principal", "operation", "resource", "name", "pattern"), rows)
        else:
            click.echo(title)
        if one.redis is not None:
            click.echo(f"Redis: {one.redis}")
        click.echo()
