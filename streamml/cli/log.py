"""Log lines on stderr, for people."""

from __future__ import annotations

import logging
from typing import Final

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


def set_up(verbose: int) -> None:
    """Send the log of this package to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("streamml")
    logger.handlers[:] = [handler]
    logger.setLevel(_LEVELS[min(verbose, 2)])
    logger.propagate = False
    if verbose < 2:
        # The client repeats every lost connection at error level; what it means for us is said by the worker.
        logging.getLogger("streamml.kafka").setLevel(logging.CRITICAL)
