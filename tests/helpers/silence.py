"""Fails where a block warns or logs, once a process or every time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Collector(logging.Handler):
    """Keeps the messages of warnings and errors."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())


@contextmanager
def silent() -> Iterator[None]:
    """Collect warnings and transformers' log lines, the ones that it prints once a process too; there must be none."""
    messages: list[str] = []
    collector = _Collector(messages)
    logger = logging.getLogger("transformers")
    level = logger.level
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    logger.addHandler(collector)
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        messages += [str(warning.message) for warning in caught]
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
    assert not messages, messages
