"""The windows are TRL's, row for row; mixtures agree with `datasets.interleave_datasets` where both say the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from packing_twin import lognormal_lengths

from alignite.data import Mixture, Packs, pack


def table(lengths: np.ndarray) -> pa.Table:
    """A row of ids for each length; ids count on over all rows."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = pa.array(np.arange(offsets[-1]))
    return pa.table({"input_ids": pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), ids)})


def as_ids(packs: Packs, lengths: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    """Our windows as TRL gives them: ids and lengths of the documents."""
    begins = np.concatenate([[0], np.cumsum(lengths)])[packs.rows] + packs.starts
    ids, sizes = [], []
    for low, high in zip(packs.offsets[:-1], packs.offsets[1:], strict=True):
        sizes.append(packs.lengths[low:high].tolist())
        spans = zip(begins[low:high], packs.lengths[low:high], strict=True)
        ids.append(np.concatenate([np.arange(begin, begin + size) for begin, size in spans]).tolist())
    return ids, sizes


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split"])
@pytest.mark.parametrize(("seed", "capacity"), [(0, 4096), (1, 512), (2, 1000), (3, 77)])
def test_bfd_is_trls(strategy: str, seed: int, capacity: int) -> None:
    from trl.data_utils import _pack_bfd

    lengths = lognormal_lengths(1000, seed)
    if strategy == "bfd":  # TRL truncates here; such rows are not given to a packer of ours
        lengths = np.minimum(lengths, capacity)
    theirs = _pack_bfd(table(lengths), capacity, "truncate" if strategy == "bfd" else "split").to_pydict()
    ours, sizes = as_ids(pack(lengths, capacity, strategy), lengths)  # type: ignore[arg-type]
    assert sizes == theirs["seq_lengths"]
    assert ours == theirs["input_ids"]


def test_wrapped_cuts_where_trl_cuts_and_keeps_documents_apart() -> None:
    from trl.data_utils import _pack_wrapped

    lengths = lognormal_lengths(300)
    packs = pack(lengths, 512, "wrapped")
    assert as_ids(packs, lengths)[0] == _pack_wrapped(table(lengths), 512).to_pydict()["input_ids"]
    # Each piece is a segment, which TRL's windows do not know of.
    assert len(packs.rows) > len(packs.offsets) - 1


def test_no_more_windows_than_trl_on_other_lengths() -> None:
    from datasets import Dataset
    from trl import pack_dataset

    generator = np.random.default_rng(0)
    for lengths in (generator.integers(1, 65, 3000), generator.geometric(0.05, 3000).clip(1, 64), np.full(3000, 33)):
        theirs = pack_dataset(Dataset(table(lengths)), 64, "bfd")
        assert len(pack(lengths, 64).offsets) - 1 <= len(theirs)


def test_stopping_at_the_first_end_is_interleave_datasets() -> None:
    from datasets import Dataset, interleave_datasets

    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    rows = {"a": 30, "b": 30, "c": 30}
    parts = [Dataset.from_dict({"source": [index] * 30}) for index in range(3)]
    theirs, ours = [], []
    for seed in range(400):
        mixed = interleave_datasets(
            parts, probabilities=list(shares.values()), seed=seed, stopping_strategy="first_exhausted"
        )
        theirs.append(len(mixed))
        sources, _ = Mixture(rows, weights=shares, exhaust="stop", seed=seed).draw(0, 1000)
        ours.append(len(sources))
        for found in (np.asarray(mixed["source"]), sources):  # ends right after some source's last row
            counts = np.bincount(found, minlength=3)
            assert counts.max() == 30
            assert counts.argmax() == found[-1]
    spread = np.hypot(np.std(theirs), np.std(ours)) / np.sqrt(400)
    assert abs(np.mean(theirs) - np.mean(ours)) < 4 * spread
