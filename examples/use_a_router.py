"""Run a router, under several budgets, and print the layers that each prompt ran.

python examples/use_a_router.py routers/demo --prompt "7 + 5 ="
"""

from __future__ import annotations

import argparse

from router import RoutedCausalLM


def main() -> None:
    """Parse the command line, load the router with its base model, and answer each prompt under each budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("router", help="router folder, or hub id")
    parser.add_argument("--prompt", action="append", help="text to continue; may be repeated")
    parser.add_argument("--max-new-tokens", type=int, default=8)
    options = parser.parse_args()
    prompts = options.prompt or ["7 + 5 =", "8 * 7 ="]

    lm = RoutedCausalLM.from_pretrained(options.router)
    depth = lm.base.config.num_hidden_layers
    for budget in (1.0, 0.9, 0.8):
        texts = lm.generate(prompts, max_new_tokens=options.max_new_tokens, budget=budget)
        print(f"at most {budget:.0%} of {depth} layers")
        for prompt, text, program in zip(prompts, texts, lm.last_programs, strict=True):
            print(f"  {prompt!r} -> {text!r}  {len(program)} layers: {program}")


if __name__ == "__main__":
    main()
