"""Files are read next to each other, and before their turn, without changing what is read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.contracts.data import DataContext
from groundup.core.errors import DataError
from groundup.core.values import Batch
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.decoding_threads import for_each


def open_stream(cache: Path, encode: Any, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "split": "train",
        "encode": encode,
        "encode_key": "",
        "end_id": 0,
        "sequence_length": 0,
        "batch_size": 4,
        "micro_batch_size": 2,
        "seed": 1,
        "cache": cache,
    }
    return open_indexed_stream(range(40), DataContext(**{**values, **changes}), in_memory=False)


def encode(numbers: Sequence[int]) -> Batch:
    return {"inputs": torch.tensor(list(numbers))}


def test_reading_ahead_gives_the_same_and_ends_when_it_is_closed(tmp_path: Path) -> None:
    where: set[str] = set()

    def told(numbers: Sequence[int]) -> Batch:
        where.add(threading.current_thread().name)
        return encode(numbers)

    stream = open_stream(tmp_path, told)
    found = [next(stream)["inputs"].tolist() for _ in range(30)]
    assert all(name.startswith("read-ahead") for name in where)
    kept = open_indexed_stream(range(40), DataContext("train", encode, "", 0, 0, 4, 2, 1, tmp_path))
    assert found == [next(kept)["inputs"].tolist() for _ in range(30)]
    # What was read ahead was not delivered: a run goes on after what was.
    assert stream.state_dict() == {"samples": 60}
    stream.load_state_dict({"samples": 8})
    assert [next(stream)["inputs"].tolist() for _ in range(3)] == found[4:7]
    stream.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("read-ahead")]
    assert next(stream)["inputs"].tolist() == found[7]  # it may be opened again
    stream.close()


def test_what_is_wrong_is_raised_when_its_turn_comes(tmp_path: Path) -> None:
    order = [next(s := open_stream(tmp_path, encode))["inputs"].tolist()]
    order += [next(s)["inputs"].tolist() for _ in range(9)]
    s.close()
    bad = order[4][1]

    def refuse(numbers: Sequence[int]) -> Batch:
        if bad in numbers:
            raise DataError(f"picture {bad}", "is damaged", "Replace it")
        return encode(numbers)

    stream = open_stream(tmp_path, refuse)
    assert [next(stream)["inputs"].tolist() for _ in range(4)] == order[:4]
    with pytest.raises(DataError, match=f"picture {bad}: is damaged"):
        next(stream)
    assert stream.state_dict() == {"samples": 8}
    stream.close()


def test_validation_is_read_in_its_turn(tmp_path: Path) -> None:
    stream = open_stream(tmp_path, encode, split="validation")
    assert [each["inputs"].tolist() for each in stream] == [[n, n + 1] for n in range(0, 40, 2)]


@pytest.mark.parametrize("parallel", [True, False])
def test_the_first_error_is_raised_as_in_a_loop(parallel: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    found = [0] * 50

    def fill(number: int) -> None:
        found[number] = number * number

    def fail(number: int) -> None:
        if number >= 20:
            raise DataError(f"picture {number}", "is damaged", "Replace it")

    try:
        for_each(fill, 50, parallel=parallel)
        assert found == [number * number for number in range(50)]
        with pytest.raises(DataError, match="picture 20: is damaged"):
            for_each(fail, 50, parallel=parallel)
    finally:
        torch.set_num_threads(before)
