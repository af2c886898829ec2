"""lm-evaluation-harness: a routed model as one of its models, under the name ``routed``.

    drllm-pipeline lm-eval --router ROUTER --budget 0.8 -- --tasks arc_easy
    simple_evaluate(model=RoutedHarnessModel(router="ROUTER"), tasks=["arc_easy"])

The prompt of a request decides its program. For a log-likelihood that is the context, without the continuation. The
results' ``config`` says how many layers ran.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from pipeline.engine import FrozenModel
from pipeline.program import LayerProgram
from router.routed.causal_lm import RoutedCausalLM

#: The name by which the harness knows the model.
NAME = "routed"
_MAX_NEW_TOKENS = 256
_BATCH_SIZE = 16
#: Options by which a request may limit its new tokens; the first that is given counts.
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@register_model(NAME)
class RoutedHarnessModel(TemplateLM):  # type: ignore[misc]
    """A routed model behind the harness's interface for models.

    Args:
        router: Folder or hub id, or a loaded ``RoutedCausalLM``.
        base: Location of the base model, if another than at the router's training.
        budget: Most layers of any sequence, as a fraction of the depth.
        average: Layers on average, as a fraction of the depth.
        batch_size: Requests that are run at once.
        max_batch_size: Accepted for the harness; not used.
        device: ``cpu`` or ``cuda``. None chooses by what is available, and so does ``cuda`` (the harness's default) on
            a machine without CUDA.
        dtype: The weights' precision.

    Raises:
        UserError: The router or its base cannot be loaded, or a budget is out of range.
    """

    backend = "causal"

    def __init__(
        self,
        router: str | RoutedCausalLM,
        *,
        base: str | None = None,
        budget: float | None = None,
        average: float | None = None,
        batch_size: int | str = _BATCH_SIZE,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        super().__init__()
        if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
            device = "auto"
        if isinstance(router, RoutedCausalLM):
            self.routed = router
        else:
            self.routed = RoutedCausalLM.from_pretrained(
                router, base=base, budget=budget, average=average, device=device, dtype=dtype
            )
        self.tokenizer = self.routed.tokenizer
        # With "auto" the harness would search for the largest batch that fits; the engine bounds its batches itself.
        self.batch_size = int(batch_size) if str(batch_size).isdigit() else _BATCH_SIZE
        self._engine = FrozenModel(self.routed.base, self.tokenizer)
        self._lengths: list[int] = []

    # -- the harness's interface ------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def max_length(self) -> int:
        """Largest number of tokens of a request, with those to generate."""
        return self._engine.context_length

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        begin = self.tokenizer.bos_token
        if add_special_tokens is None:
            # A chat template has already added the special tokens.
            add_special_tokens = not (begin and string.startswith(begin))
        tokens: list[int] = self.tokenizer(string, add_special_tokens=add_special_tokens).input_ids
        return tokens

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def get_model_info(self) -> dict[str, Any]:
        """The base, the router's bounds, and the layers that the requests ran, for the results."""
        depth = self.routed.router.head.num_layers
        mean = sum(self._lengths) / len(self._lengths) if self._lengths else None
        return {
            "base_model": self.routed.router.base.name,
            "base_revision": self.routed.router.base.revision,
            "budget": self.routed.budget,
            "average": self.routed.average,
            "num_layers": depth,
            "mean_layers_run": mean,
            "most_layers_run": max(self._lengths, default=None),
            "fraction_of_layers_run": None if mean is None else mean / depth,
            "requests": len(self._lengths),
        }

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **others: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations, and whether greedy decoding would write them."""
        results: dict[int, tuple[float, bool]] = {}
        # Requests with the same context are adjacent, so that its program is chosen once.
        order = sorted(range(len(requests)), key=lambda row: (len(requests[row][1]), requests[row][1]))
        for rows in self._batches(order, disable=disable_tqdm, title="log-likelihoods"):
            pairs = [self._cut(requests[row][1], requests[row][2]) for row in rows]
            programs = self._route([context for context, _ in pairs])
            logits = self._engine.logits(
                [context + continuation[:-1] for context, continuation in pairs],
                programs,
                starts=[len(context) - 1 for context, _ in pairs],
            )
            for row, (_, continuation), of_row in zip(rows, pairs, logits):
                target = torch.tensor(continuation, device=of_row.device)
                log_p = of_row.log_softmax(-1).gather(1, target[:, None]).sum()
                results[row] = (float(log_p), bool((of_row.argmax(-1) == target).all()))
                key = requests[row][0]
                if key is not None:
                    self.cache_hook.add_partial("loglikelihood", key, results[row])
        return [results[row] for row in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts. A text has no prompt: the token before it decides its program."""
        results = []
        for request in requests:
            [text] = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            likelihoods = self._loglikelihood_tokens(pairs, disable_tqdm=True)
            results.append(sum(likelihood for likelihood, _ in likelihoods))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), results[-1])
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string, which is cut off."""
        results: dict[int, str] = {}
        by_options: dict[str, list[int]] = {}
        for row, request in enumerate(requests):
            by_options.setdefault(repr(sorted(request.args[1].items())), []).append(row)
        for rows_alike in by_options.values():
            options: dict[str, Any] = dict(requests[rows_alike[0]].args[1])
            until = options.pop("until", None) or []
            until = [until] if isinstance(until, str) else [stop for stop in until if stop]
            lengths = [options.pop(name, None) for name in _LENGTHS]
            length = next((int(length) for length in lengths if length is not None), _MAX_NEW_TOKENS)
            if not options.get("do_sample", (options.get("temperature") or 0) > 0):
                options = {k: v for k, v in options.items() if k not in ("temperature", "top_p", "top_k")}
                options["do_sample"] = False
            if until:
                options["stop_strings"] = until
            rows_alike.sort(key=lambda row: len(requests[row].args[0]))
            for rows in self._batches(rows_alike, disable=disable_tqdm, title="answers"):
                room = max(1, self.max_length - length)
                contexts = [self.tok_encode(requests[row].args[0])[-room:] for row in rows]
                for row, text in zip(rows, self.routed.generate(contexts, max_new_tokens=length, **options)):
                    results[row] = min((text.split(stop)[0] for stop in until), key=len, default=text)
                    self.cache_hook.add_partial("generate_until", requests[row].args, results[row])
                self._lengths += [len(program) for program in self.routed.last_programs]
        return [results[row] for row in range(len(requests))]

    # -- inside ----------------------------------------------------------------------------

    def _batches(self, rows: Sequence[int], *, disable: bool, title: str) -> Iterable[Sequence[int]]:
        starts = range(0, len(rows), self.batch_size)
        for start in tqdm(starts, desc=title, disable=disable):
            yield rows[start : start + self.batch_size]

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """Context and continuation, cut on the left to the model's length."""
        # The harness moves blanks at the end of a context to the continuation; the context may be empty then.
        kept = ((context or [self.prefix_token_id]) + continuation)[-(self.max_length + 1) :]
        length = min(len(continuation), len(kept) - 1)
        return kept[: len(kept) - length], kept[len(kept) - length :]

    def _route(self, contexts: Sequence[list[int]]) -> list[LayerProgram]:
        """A program for each context; equal contexts are read once."""
        different = list(dict.fromkeys(map(tuple, contexts)))
        chosen = dict(zip(different, self.routed.route(different, batch_size=self.batch_size)))
        programs = [chosen[tuple(context)] for context in contexts]
        self._lengths += map(len, programs)
        return programs


def run_harness(arguments: Sequence[str], *, model_args: dict[str, Any]) -> None:
    """Run lm-eval's own command line on the routed model.

    Args:
        arguments: Options of lm-eval, which follow ``--`` on our command line: ``--tasks …``.
        model_args: Arguments of ``RoutedHarnessModel``; those that are None are left out.
    """
    from lm_eval.__main__ import cli_evaluate

    model_json = json.dumps({name: value for name, value in model_args.items() if value is not None})
    before = sys.argv
    # Where an option is given twice, the last one counts: the user's.
    sys.argv = [
        "lm-eval",
        "run",
        "--model",
        NAME,
        "--model_args",
        model_json,
        "--batch_size",
        str(_BATCH_SIZE),
        *arguments,
    ]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
