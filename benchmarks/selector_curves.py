"""``python -m benchmarks.selector_curves MENU``: what a selector gains with more examples and with a larger menu.

A menu's matrix is cut to its first examples and its first programs. A selector is validated on each part, beside the
base model and the best static program. Figures are of the examples that the menu held out, in left-out folds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from pipeline.distributed.cluster import Resources
from router.heads.selector.selector_request import SelectorRequest
from router.heads.selector.validation import BASE, ORACLE, SELECTOR, STATIC, STATIC_BY_KIND, gap_closed
from router.training.selector_data import SelectorData, read_selector_data

#: Prices of a layer, in right answers an example.
PRICES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03)
EXAMPLES = (250, 500, 1000, 2000, 4000)
PROGRAMS = (4, 8, 12, 16)


@click.command()
@click.argument("menu", type=click.Path(path_type=Path, exists=True))
@click.option("--features", type=click.Path(path_type=Path), help="Folder of the prompts' features.")
@click.option("--seed", default=0, show_default=True, help="Seed of the folds.")
@click.option("--out", type=click.Path(path_type=Path), help="File of the figures, as JSON.")
def main(menu: Path, features: Path | None, seed: int, out: Path | None) -> None:
    """Print the figures."""
    request = SelectorRequest(
        menu=menu, out=menu / "unused", seed=seed, features=features, resources=Resources(num_actors=1)
    )
    data = read_selector_data(request, announce=print)
    number, size = data.right.shape
    every, whole = np.ones(number, dtype=bool), list(range(size))
    found: dict[str, Any] = {"menu": str(menu), "examples": number, "programs": size, "seed": seed}
    print(f"{number} examples, {int(data.judged.sum())} of them judged; {size} programs")
    found["price"] = [_row(f"price {price:g}", data, price=price) for price in PRICES]
    found["examples_curve"] = [
        _row(f"{count} examples", data.of(_first(data, count), whole)) for count in EXAMPLES if count < number
    ]
    found["menu_curve"] = [
        _row(f"{count} programs", data.of(every, whole[:count])) for count in PROGRAMS if count < size
    ]
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")


def _first(data: SelectorData, count: int) -> Any:
    """As many examples in all, the same share of them judged."""
    share = count / len(data.judged)
    chosen = np.zeros(len(data.judged), dtype=bool)
    for judged in (False, True):
        places = np.flatnonzero(data.judged == judged)
        chosen[places[: max(2, round(share * len(places)))]] = True
    return chosen


def _row(name: str, data: SelectorData, *, price: float = 0.0) -> dict[str, Any]:
    validated = data.validate(layer_price=price)
    by_method = {one.method: one for one in validated}
    parts = []
    for method in (BASE, STATIC, SELECTOR, STATIC_BY_KIND, ORACLE):
        one = by_method[method]
        parts.append(f"{method} {100 * one.right:.2f} % at {one.layers:.2f}")
    selector = by_method[SELECTOR]
    print(
        f"{name:16} {'; '.join(parts)}; gain {100 * selector.gain:+.2f} ({100 * selector.gain_low:+.2f} to "
        f"{100 * selector.gain_high:+.2f}), p {selector.p_value:.1g}, against static {selector.p_static:.1g}; "
        f"gap closed {100 * gap_closed(validated):.1f} %",
        flush=True,
    )
    return {"name": name, "gap_closed": gap_closed(validated), "methods": {one.method: vars(one) for one in validated}}


if __name__ == "__main__":
    main()
