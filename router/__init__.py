"""From path data sets to a frozen model that chooses its own depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.routed import RoutedCausalLM

__all__ = ["RoutedCausalLM"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and the command line's --help need not wait for it.
    if name == "RoutedCausalLM":
        from router.routed import RoutedCausalLM

        return RoutedCausalLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
