"""The baseline that learns nothing, against its definition."""

import importlib.util
import random
from functools import cache
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "translation_memory.py"
SPEC = importlib.util.spec_from_file_location("translation_memory", PATH)
memory = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(memory)


def slow_similarity(a, b):
    @cache
    def common(i, j):
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + common(i + 1, j + 1)
        return max(common(i + 1, j), common(i, j + 1))

    return 2 * common(0, 0) / (len(a) + len(b))


def random_texts(count, seed):
    rng = random.Random(seed)
    return ["".join(rng.choices("abcd e", k=rng.randint(1, 14))) for _ in range(count)]


def test_similarity_is_that_of_the_longest_common_subsequence():
    for a, b in zip(random_texts(50, 0), random_texts(50, 1), strict=True):
        assert memory.similarity(a, b) == pytest.approx(slow_similarity(a, b))


def test_nearest_finds_the_first_best_of_all():
    candidates, queries = random_texts(60, 2), random_texts(20, 3)
    for query, (ratio, index) in zip(queries, memory.nearest(candidates, queries), strict=True):
        ratios = [memory.similarity(query, candidate) for candidate in candidates]
        assert ratio == pytest.approx(max(ratios))
        assert index == ratios.index(max(ratios))


def test_the_memory_answers_with_the_target_of_the_most_similar_source():
    train = [("open the file", "Datei öffnen"), ("close the window", "Fenster schließen")]
    assert memory.translation_memory(train, ["Open the files"])[0] == ["Datei öffnen"]


def test_the_held_out_pairs_are_the_749():
    assert (len(memory.learnable("train")), len(memory.learnable("held_out"))) == (24_240, 749)


@pytest.mark.slow
def test_the_table_has_the_known_numbers(tmp_path):
    (tmp_path / "copy").write_text(
        "\n".join(source for source, _ in memory.learnable("held_out")) + "\n"
    )
    table = [line.split() for line in memory.report([str(tmp_path / "copy")])]
    assert table[1] == ["749", "332"]
    assert table[2][-3:-1] == table[5][-3:-1] == ["9.3", table[2][-2]]
    assert [float(table[3][-3]), float(table[4][-3]), float(table[4][-2])] == [26.1, 25.6, 9.4]
