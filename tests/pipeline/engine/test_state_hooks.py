"""The hook on prompts' states: every state of every row, under the row's own number, from the pass that decodes."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from architectures import NUM_LAYERS, PROGRAMS, build

from pipeline.engine import FrozenModel
from pipeline.program import LayerProgram


class Recorder:
    """Keeps every state by row and depth, the last reading of each."""

    def __init__(self, *, every_token: bool) -> None:
        self.every_token = every_token
        self.states: dict[int, dict[int, torch.Tensor]] = defaultdict(dict)

    def on_state(self, rows, depth, state):
        for row in rows:
            self.states[row][depth] = state.clone()


@pytest.mark.parametrize("every_token", [True, False])
@pytest.mark.parametrize("max_batch_tokens", [4096, 30, 1])
def test_a_hook_sees_every_state_of_its_row(llama, programs, prompt, max_batch_tokens, every_token):
    """Catches a batch whose rows are counted from 0, a depth that is left out, and a last state that is cut short."""
    rows = [prompt(length, seed=3) for length in (9, 1, 20, 6, 3, 2, 7, 17, 5, 10)]
    wanted = list(programs.values()) * 2
    hook = Recorder(every_token=every_token)
    model = FrozenModel(llama.hf_model, max_batch_tokens=max_batch_tokens, cache_bytes=1 << 20)
    model.logits(rows[:4], wanted[:4])  # some prefixes come from the cache
    decoded = model.decode(rows, wanted, max_new_tokens=3, hook=hook)
    assert [row.tokens for row in decoded] == llama.generate(rows, wanted, max_new_tokens=3)
    for row, expected in enumerate(llama.hidden_states(rows, wanted)):
        assert sorted(hook.states[row]) == list(range(len(wanted[row]) + 1))
        for depth, state in hook.states[row].items():
            whole = every_token or depth < len(wanted[row])
            assert not whole or len(state) == len(rows[row])
            torch.testing.assert_close(state, expected[depth][-len(state) :], atol=1e-4, rtol=0)


class FirstState:
    """A probe that labels a prompt with a number of each layer's state, and counts how often it is asked."""

    whole = False

    def __init__(self) -> None:
        self.asked = 0

    def check_model(self, hf_model):
        pass

    def take(self, state):
        return state[-1:, :1].clone()

    def label(self, states):
        self.asked += 1
        return states.flatten().tolist()


def test_a_prompt_is_labelled_once_though_memory_ran_out(monkeypatch, prompt):
    """Catches states of a batch that failed, which are left before those of its second reading."""
    model, probe = FrozenModel(build("llama")), FirstState()
    rows, program = [prompt(12), prompt(8), prompt(10)], LayerProgram(PROGRAMS["skips"], NUM_LAYERS)
    _, expected = model.generate(rows, [program] * 3, max_new_tokens=1, probes=[FirstState()])
    run_layer, failures = model.stack.run_layer, []

    def short_of_memory(layer, hidden, **arguments):
        if layer == NUM_LAYERS - 1 and not failures:
            failures.append(layer)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return run_layer(layer, hidden, **arguments)

    monkeypatch.setattr(model.stack, "run_layer", short_of_memory)
    _, labels = model.generate(rows, [program] * 3, max_new_tokens=1, probes=[probe])
    assert failures and probe.asked == 3
    for mine, theirs in zip(labels, expected, strict=True):
        assert mine[0] == pytest.approx(theirs[0], abs=1e-4)
        assert len(mine[0]) == NUM_LAYERS + 1


def test_no_probes_ask_for_no_order(llama, programs, prompt):
    """Catches an empty list of probes that refuses programs which only a probe could not read."""
    program = programs["back-and-forth"]
    tokens = llama.generate([prompt(9)], [program], max_new_tokens=2)
    assert llama.generate([prompt(9)], [program], max_new_tokens=2, probes=[]) == (tokens, [[]])
    with pytest.raises(ValueError, match="keep the layers' order"):
        llama.generate([prompt(9)], [program], max_new_tokens=2, probes=[FirstState()])
