from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import pytest
import toy

from alignite.errors import CheckpointError, UsageError
from alignite.training.source import PackedSource
from alignite.types import Update


def rows(count: int) -> toy.ToySet:
    # The first token of a row is its number, so that batches say which windows they hold.
    return toy.ToySet([[([n, 1, 2], [-100, 1, 2])] for n in range(count)])


def windows(update: Update | None) -> list[int]:
    assert update is not None
    return [int(batch.input_ids[start]) for batch in update.batches for start, _, _ in batch.segments]


def all_windows(source: PackedSource) -> list[list[int]]:
    found = []
    while (update := source.next_update()) is not None:
        found.append(windows(update))
    return found


def flat(parts: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


def make(count: int = 11, **options: object) -> PackedSource:
    return PackedSource(rows(count), **{"batch_size": 4, "seed": 3, "epochs": 2, **options})  # type: ignore[arg-type]


def test_every_epoch_holds_each_window_once_in_an_order_of_its_own() -> None:
    source = make()
    assert source.num_updates == 6
    updates = all_windows(source)
    assert [len(update) for update in updates] == [4, 4, 3, 4, 4, 3]
    first, second = flat(updates[:3]), flat(updates[3:])
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second
    assert first != list(range(11))
    assert all_windows(make()) == updates
    assert all_windows(make(seed=4)) != updates


def test_the_files_order_is_kept_without_shuffling() -> None:
    assert flat(all_windows(make(shuffle=False, epochs=1))) == list(range(11))


GROUPS = np.repeat([0, 1, 2, 3, 5], [3, 4, 2, 1, 9])


def test_updates_hold_whole_groups_and_go_on_at_their_borders() -> None:
    def source(**options: object) -> PackedSource:
        return make(19, **{"shuffle": False, "groups": GROUPS, "batch_size": 6, "epochs": 2, **options})

    expected = [[0, 1, 2], [3, 4, 5, 6, 7, 8], [9], list(range(10, 19))]
    assert source().updates_per_epoch == 4
    assert all_windows(source()) == expected * 2
    two = [all_windows(source(batch_size=3, rank=rank, world=2)) for rank in range(2)]
    assert [sorted(one + other) for one, other in zip(*two, strict=True)] == expected * 2
    for done in range(1, 8):
        first, second = source(), source(batch_size=3, accumulation=2)
        for _ in range(done):
            first.next_update()
        second.load_state_dict(first.state_dict())
        assert all_windows(second) == (expected * 2)[done:]
    with pytest.raises(UsageError, match="shuffle"):
        source(shuffle=True)


@pytest.mark.parametrize(("batch", "accumulation", "world"), [(8, 1, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 2, 4)])
def test_any_split_covers_the_same_windows_in_each_update(batch: int, accumulation: int, world: int) -> None:
    whole = [sorted(update) for update in all_windows(make(21, batch_size=8))]
    parts = [
        all_windows(make(21, batch_size=batch, accumulation=accumulation, world=world, rank=rank))
        for rank in range(world)
    ]
    assert [sorted(flat(ranks)) for ranks in zip(*parts, strict=True)] == whole


def test_a_batch_with_too_many_tokens_is_split_between_windows() -> None:
    lengths = [3, 3, 3, 9, 2, 2, 2, 2]
    prepared = toy.ToySet([[([n] + [1] * (length - 1), [-100] * length)] for n, length in enumerate(lengths)])
    source = PackedSource(prepared, batch_size=4, accumulation=2, max_tokens=6, shuffle=False)  # type: ignore[arg-type]
    update = source.next_update()
    assert update is not None
    found = [[int(batch.input_ids[start]) for start, _, _ in batch.segments] for batch in update.batches]
    # A window of its own exceeds the limit alone; the border between the two batches stays.
    assert found == [[0, 1], [2], [3], [4, 5, 6], [7]]


def test_a_last_update_smaller_than_the_ranks_leaves_some_without_rows() -> None:
    updates = [make(9, batch_size=4, world=2, rank=rank, epochs=1) for rank in range(2)]
    for source in updates:
        source.next_update()
    lengths = [len(update.batches) for source in updates if (update := source.next_update()) is not None]
    assert lengths == [1, 0]


def test_fractions_of_epochs_and_max_steps() -> None:
    assert make(epochs=0.5).num_updates == 2
    assert make(epochs=0.5, max_steps=9).num_updates == 9
    assert len(all_windows(make(max_steps=9))) == 9


@pytest.mark.parametrize("stop", range(7))
def test_a_restored_source_goes_on_exactly_also_twice(stop: int) -> None:
    expected = all_windows(make())
    source = make()
    found = [windows(source.next_update()) for _ in range(stop)]
    for _ in range(2):
        again = make()
        again.load_state_dict(source.state_dict())
        source = again
        if len(found) < len(expected):
            found.append(windows(source.next_update()))
    assert found + all_windows(source) == expected


def test_a_restored_source_goes_on_with_another_number_of_ranks() -> None:
    expected = [sorted(update) for update in all_windows(make(30, batch_size=8))]
    source = make(30, batch_size=8)
    source.next_update()
    state = source.state_dict()
    parts = []
    for rank in range(4):
        again = make(30, batch_size=2, world=4, rank=rank)
        again.load_state_dict(state)
        parts.append(all_windows(again))
    assert [sorted(flat(ranks)) for ranks in zip(*parts, strict=True)] == expected[1:]


def test_tokens_are_counted_over_all_ranks_and_kept() -> None:
    source = make(11, world=2, rank=1, batch_size=2)
    updates = [source.next_update(), source.next_update()]
    assert [update.num_tokens for update in updates if update] == [12, 24]
    again = make(11, world=2, rank=0, batch_size=2)
    again.load_state_dict(source.state_dict())
    update = again.next_update()
    assert update is not None
    assert update.num_tokens == 33
    assert update.epoch == pytest.approx(1.0)


def test_other_data_is_refused() -> None:
    state = {**make().state_dict(), "fingerprint": "other"}
    with pytest.raises(CheckpointError, match="the data has changed"):
        make().load_state_dict(state)


def test_the_toy_set_counts_what_it_holds() -> None:
    data = toy.ToySet([toy.eight_rows()])
    batch = data.batch(np.array([0]))
    assert batch.num_tokens == data.window_tokens(np.array([0]))[0]
