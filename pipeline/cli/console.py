"""The console that commands write to."""

from __future__ import annotations

from typing import Any

import rich.console


class Console(rich.console.Console):
    """A console that leaves long lines to the terminal, so that a path can be copied whole.

    Args:
        attributes: As for ``rich.console.Console``.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(soft_wrap=True, **attributes)

    def say(self, text: str) -> None:
        """Write text as it is: without colours for numbers, and with brackets that are no markup."""
        self.print(text, highlight=False, markup=False)
