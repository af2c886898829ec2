"""Sequence states are values: who waits at a layer keeps what it was given."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from architectures import NUM_LAYERS

from pipeline.engine.executor import Executor, SequenceState
from pipeline.engine.text_tree import Text, TextTree
from pipeline.program import LayerProgram


@torch.inference_mode()
def test_a_state_that_waits_is_not_changed(llama, prompt):
    """Catches a layer that writes into the state that it was given, which diverging programs still wait for."""
    stack, ids = llama.stack, prompt(9)
    # The layers of each program, in the order in which they run: they split after layer 0 and after layer 1.
    programs = [LayerProgram(layers, NUM_LAYERS) for layers in [(0, 1, 2, 3), (0, 1, 3), (0, 2), (0, 1, 2, 2)]]
    text = Text(tokens=ids, rotary=stack.rotary(len(ids)), logits_from=4, rows=[0, 1, 2, 3])
    start = SequenceState(tree=0, hidden_ND=stack.embed(torch.tensor(ids)), depth=0, rows=(0, 1, 2, 3))
    seen = [(start, start.hidden_ND.clone())]
    results = {}
    for output in Executor(stack).run_trees([TextTree(texts=[text])], [start], programs):
        seen.append((output.state, output.state.hidden_ND.clone()))
        for row in output.state.rows:
            assert output.state.depth <= len(programs[row])
            if output.state.depth == len(programs[row]):
                results[row] = stack.head(output.state.hidden_ND[-text.num_logits :]).float()
    for state, before in seen:
        assert torch.equal(state.hidden_ND, before)
    for row, expected in enumerate(llama.logits([ids] * 4, programs, starts=[4] * 4)):
        torch.testing.assert_close(results[row], expected, atol=1e-4, rtol=0)


def test_a_state_cannot_be_written_to(llama):
    """Catches a state that is advanced in place while a list still holds it as it was."""
    state = SequenceState(tree=0, hidden_ND=torch.zeros(2, 3), depth=0, rows=(0,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.depth = 1  # type: ignore[misc]


@torch.inference_mode()
def test_the_counter_counts_each_layer_of_a_state_once(llama, prompt):
    """Catches layers that are counted by row, which would hide what sharing a prefix saves."""
    stack, ids = llama.stack, prompt(9)
    programs = [LayerProgram((0, 1, 2), NUM_LAYERS), LayerProgram((0, 1, 3), NUM_LAYERS)]
    text = Text(tokens=ids, rotary=stack.rotary(len(ids)), logits_from=0, rows=[0, 1])
    start = SequenceState(tree=0, hidden_ND=stack.embed(torch.tensor(ids)), depth=0, rows=(0, 1))
    executor = Executor(stack)
    assert len(list(executor.run_trees([TextTree(texts=[text])], [start], programs))) == executor.layers_run == 4
