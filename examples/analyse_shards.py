"""Analyse a run with pandas: how much is saved, what is corrected, and which layers the best programs skip.

python examples/analyse_shards.py runs/demo
"""

from __future__ import annotations

import argparse

import pandas as pd

from pipeline import read_paths


def layers_skipped(best: pd.DataFrame) -> pd.Series:
    """In which share of the programs each layer is skipped, the most skipped first.

    Args:
        best: Rows of one program an example.
    """
    num_layers = int(best.num_layers.iloc[0])
    used = best.program.map(set)
    shares = {
        layer: float((~used.map(lambda layers, layer=layer: layer in layers)).mean()) for layer in range(num_layers)
    }
    return pd.Series(shares).sort_values(ascending=False, kind="stable")


def main() -> None:
    """Parse the command line, read the committed rows, and print what they show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder, or its URL")
    options = parser.parse_args()

    rows = read_paths(options.run)
    best = rows[rows.is_best]
    right, wrong = best[best.baseline_correct], best[~best.baseline_correct]
    print(f"examples:  {rows.example_id.nunique()}")
    print(f"shortened: {(right.saved_layers > 0).sum()}, on average by {right.saved_layers.mean():.1f} layers")
    print(f"corrected: {len(wrong)}")
    print("most skipped layers of the best programs:")
    for layer, share in layers_skipped(best).head(5).items():
        print(f"  layer {layer}: {share:.0%}")


if __name__ == "__main__":
    main()
