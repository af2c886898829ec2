"""Our commands as users type them, in the test's own process."""

from __future__ import annotations

from click.testing import CliRunner

from pipeline.cli.main import main


def command(*words: object, status: int = 0) -> str:
    """The output of a command, which must end with the given status, and never with a traceback."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == status, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output
