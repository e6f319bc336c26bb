"""Near duplicates against datasketch's MinHashLSH and against exact Jaccard similarities."""

from __future__ import annotations

import random

from datasketch import MinHash, MinHashLSH

from alignite.data.cleaning import deduplicate

NGRAM = 5


def ngrams(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[n : n + NGRAM]) for n in range(len(words) - NGRAM + 1)}


def pairs(count: int) -> list[tuple[str, str, float]]:
    """Texts that share words with their partner only, and the exact Jaccard similarity of the two."""
    rng = random.Random(0)
    made = []
    for pair in range(count):
        one = [f"p{pair}w{n}" for n in range(rng.randint(30, 200))]
        other = list(one)
        for place in rng.sample(range(len(one)), rng.randint(0, len(one) // 15)):
            other[place] = f"p{pair}x{place}"
        first, second = ngrams(" ".join(one)), ngrams(" ".join(other))
        made.append((" ".join(one), " ".join(other), len(first & second) / len(first | second)))
    return made


def test_pairs_are_found_as_often_as_by_datasketch_and_as_theory_says() -> None:
    made = pairs(700)
    rows = [text for pair in made for text in pair[:2]]
    _, groups = deduplicate(rows, "minhash", threshold=0.8, ngram=NGRAM)
    ours = [bool(groups[2 * pair + 1] == 2 * pair) for pair in range(len(made))]
    assert all(first // 2 == row // 2 for row, first in enumerate(groups)), "rows of different pairs share nothing"

    # The same bands, and candidates are let go by the same estimate.
    index = MinHashLSH(num_perm=128, params=(16, 8))
    theirs = []
    for pair, (one, other, _) in enumerate(made):
        sketches = []
        for text in (one, other):
            sketch = MinHash(num_perm=128)
            sketch.update_batch([gram.encode() for gram in ngrams(text)])
            sketches.append(sketch)
        index.insert(pair, sketches[0])
        theirs.append(pair in index.query(sketches[1]) and sketches[0].jaccard(sketches[1]) >= 0.8)

    counted = 0
    for low, high in [(0.0, 0.65), (0.65, 0.75), (0.75, 0.8), (0.8, 0.85), (0.85, 0.9), (0.9, 1.01)]:
        inside = [n for n, pair in enumerate(made) if low <= pair[2] < high]
        counted += len(inside)
        assert len(inside) >= 20, (low, high, len(inside))
        found, peer = sum(ours[n] for n in inside), sum(theirs[n] for n in inside)
        # Two binomial counts of the same chance differ by less than four standard deviations.
        assert abs(found - peer) <= 4 * (0.5 * len(inside)) ** 0.5, (low, high, found, peer)
        if high <= 0.65:
            assert found == peer == 0
        if low >= 0.9:
            assert found >= 0.99 * len(inside)
            assert peer >= 0.99 * len(inside)
    assert counted == len(made)


def test_planted_duplicates_are_found_by_both() -> None:
    made = pairs(100)
    rows = [pair[0] for pair in made] + [pair[0].upper() + "!" for pair in made[::2]]
    kept, groups = deduplicate(rows, "minhash")
    assert kept.tolist() == list(range(100))
    assert groups.tolist() == [*range(100), *range(0, 100, 2)]
