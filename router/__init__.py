"""From path data sets to a frozen model that chooses its own depth, and labels from the same pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.probes.probe import Probe
    from router.routed.causal_lm import RoutedCausalLM

__all__ = ["Probe", "RoutedCausalLM"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and the command line's --help need not wait for it.
    if name == "RoutedCausalLM":
        from router.routed.causal_lm import RoutedCausalLM

        return RoutedCausalLM
    if name == "Probe":
        from router.probes.probe import Probe

        return Probe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
