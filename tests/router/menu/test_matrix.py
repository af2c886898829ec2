"""The matrix: outcomes that are kept once, in shards that are whole, and missing ones that are found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import StorageError, writer_of
from router.menu.matrix import MOST_EXAMPLES, LayerCost, Matrix, MatrixChunk, read_matrix, shards_of
from router.menu.racing import Outcomes

IDENTITY, SHORT = LayerProgram.identity(4), LayerProgram.parse("0,2-3", 4)
IDS = [f"q{number}" for number in range(20)]


def outcomes_of(chunk):
    """Made-up outcomes, which say where they belong."""
    right = np.array([[(place + len(program)) % 3 / 2 for program in chunk.programs] for place in chunk.places])
    return Outcomes(right=right, margins=right - 0.25)


@pytest.fixture
def writer(tmp_path):
    writer = writer_of(tmp_path)
    writer.acquire(print)
    yield writer
    writer.release()


def filled(folder, writer, programs=(IDENTITY, SHORT), places=range(20)):
    matrix = Matrix(folder, IDS, num_layers=4)
    for chunk in matrix.missing(programs, places):
        matrix.add(chunk, outcomes_of(chunk), cost=LayerCost(run=10, separately=40), writer=writer)
    return matrix


def test_outcomes_come_back_in_their_places(tmp_path, writer):
    """Catches rows and columns that are exchanged, in memory or on the disk."""
    written = filled(tmp_path, writer)
    for matrix in (written, Matrix(tmp_path, IDS, num_layers=4)):
        outcomes = matrix.outcomes([SHORT, IDENTITY], range(3, 20))
        assert outcomes.right.shape == (17, 2)
        expected = outcomes_of(MatrixChunk(places=tuple(range(3, 20)), programs=(SHORT, IDENTITY)))
        np.testing.assert_allclose(outcomes.right, expected.right)
        np.testing.assert_allclose(outcomes.margins, expected.margins)
        assert (matrix.evaluations, matrix.cost.separately) == (40, 40 * len(shards_of(tmp_path)))
        assert matrix.cost.run == 10 * len(shards_of(tmp_path)) and not matrix.missing([SHORT], range(20))


def test_missing_outcomes_are_asked_for_once(tmp_path, writer):
    """Catches an outcome that is computed twice, or never, and a chunk that no actor could hold."""
    matrix = filled(tmp_path, writer, programs=[IDENTITY], places=range(6))
    chunks = matrix.missing([IDENTITY, SHORT], range(20))
    pairs = [(place, program) for chunk in chunks for place in chunk.places for program in chunk.programs]
    known = {(place, IDENTITY) for place in range(6)}
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == {(place, program) for place in range(20) for program in (IDENTITY, SHORT)} - known
    assert max(len(chunk.places) for chunk in chunks) <= MOST_EXAMPLES
    with pytest.raises(ValueError, match="14 outcomes are missing"):
        matrix.outcomes([IDENTITY], range(20))


def test_a_deleted_shard_is_a_hole(tmp_path, writer):
    """Catches a hole that is taken for wrong answers, or that nothing fills."""
    filled(tmp_path, writer)
    gone = shards_of(tmp_path)[1]
    rows = len(pd.read_parquet(gone))
    before = gone.read_bytes()
    gone.unlink()
    matrix = Matrix(tmp_path, IDS, num_layers=4)
    assert sum(map(len, matrix.missing([IDENTITY, SHORT], range(20)))) == rows
    filled(tmp_path, writer)
    assert gone.read_bytes() == before


def test_pandas_reads_the_matrix(tmp_path, writer):
    """Catches a folder that pandas cannot read, and rows out of order."""
    filled(tmp_path, writer)
    frame = read_matrix(tmp_path)
    assert len(frame) == len(pd.read_parquet(tmp_path / "matrix")) == 40
    assert list(frame.example_id.unique()) == IDS and set(frame.program) == {"0-3", "0,2-3"}
    assert frame.right.between(0, 1).all() and set(frame.length) == {3, 4}


def test_a_damaged_shard_is_named(tmp_path, writer):
    """Catches a traceback, and outcomes of another menu's examples that count here."""
    filled(tmp_path, writer)
    shard = shards_of(tmp_path)[0]
    with pytest.raises(UserError, match="other examples than the menu's"):
        Matrix(tmp_path, IDS[1:], num_layers=4)
    with pytest.raises(UserError, match="is damaged"):
        Matrix(tmp_path, IDS, num_layers=3)
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{shard.name} is damaged .*; remove it, and run the same menu command"):
        Matrix(tmp_path, IDS, num_layers=4)
    pd.DataFrame({"place": [1]}).to_parquet(shard)
    with pytest.raises(UserError, match="it has other columns"):
        read_matrix(tmp_path)
    with pytest.raises(UserError, match="is it a menu"):
        read_matrix(tmp_path / "elsewhere")


def test_a_store_that_reads_back_something_else_keeps_nothing(tmp_path, writer, monkeypatch):
    """Catches a shard that counts although the disk lost a part of it."""
    matrix = Matrix(tmp_path, IDS, num_layers=4)
    monkeypatch.setattr(writer, "_check_staged", lambda staged, check: check(staged.read_bytes()[:-1]))
    chunk = matrix.missing([IDENTITY], range(20))[0]
    with pytest.raises(StorageError, match="does not read back"):
        matrix.add(chunk, outcomes_of(chunk), cost=LayerCost(run=1, separately=1), writer=writer)
    assert not shards_of(tmp_path) and matrix.evaluations == 0
