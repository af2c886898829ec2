"""Search layer programs with an evaluator of your own: which layers can go without changing the next token?

python examples/search_your_own_evaluator.py --model smollm2 --prompt "The capital of France is"
"""

from __future__ import annotations

import argparse

import torch

from pipeline import FrozenModel, LayerProgram
from pipeline.search import SearchConfig, SearchTree


def search_same_token(model: FrozenModel, prompt: str, *, simulations: int) -> SearchTree:
    """Search the shortest program whose next token is the base model's.

    Args:
        model: The frozen model.
        prompt: The text to continue.
        simulations: Programs to try, beside the identity program.

    Returns:
        The finished search.
    """
    tokens = model.tokenizer(prompt).input_ids

    def next_token_logits(program: LayerProgram) -> torch.Tensor:
        """Logits ``[vocabulary]`` behind the prompt."""
        return model.logits([tokens], [program])[0][-1]

    wanted = int(next_token_logits(LayerProgram.identity(model.num_layers)).argmax())
    tree = SearchTree(num_layers=model.num_layers, config=SearchConfig(simulations=simulations), seed=0)
    while (program := tree.propose()) is not None:
        logits = next_token_logits(program)
        others = logits.clone()
        others[wanted] = -torch.inf
        # The margin: how far the wanted token is ahead of the best other one. It is negative where it is behind.
        margin = float(logits[wanted] - others.max())
        tree.update(program, correct=margin > 0, margin=margin)
    return tree


def main() -> None:
    """Parse the command line, search, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="hub id, local folder, .gguf file or 'smollm2'")
    parser.add_argument("--prompt", default="The capital of France is")
    parser.add_argument("--simulations", type=int, default=100, help="programs to try")
    options = parser.parse_args()

    model = FrozenModel.load(options.model)
    tree = search_same_token(model, options.prompt, simulations=options.simulations)
    best = tree.best()
    assert best is not None, "the identity program gives its own token"
    print(f"base model:       {model.num_layers} layers")
    print(f"shortest program: {len(best.program)} layers, {best.program}, margin {best.margin:.2f}")
    print(f"programs tried:   {len(tree.verdicts)}")


if __name__ == "__main__":
    main()
