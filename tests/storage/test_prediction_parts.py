"""The folder of an unfinished prediction: whatever a killed process left in it goes with it, and nothing else."""

from pathlib import Path

import torch

from danube_sweep.storage.prediction_parts import Part, held_parts


def test_the_folder_goes_with_all_that_a_killed_process_left_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "out.csv.parts"
    with held_parts(tmp_path / "out.csv") as kept:
        assert not kept.begin("a key")
        kept.keep(0, 0, Part(["row"], torch.ones(1, 2)))
        # Killed in the middle of the next part: our temporary name, and that of safetensors.
        for name in (".000-000001.safetensors.7-0a1b2c.tmp", ".tmpAb3xYz", "..danube_sweep.7-0a1b2c.tmp"):
            (folder / name).touch()
    with held_parts(tmp_path / "out.csv") as kept:
        assert kept.begin("a key") and [one.examples for one in kept.stored(0)] == [["row"]]
        kept.finish()
    assert not folder.exists()


def test_a_file_of_the_users_stays_in_the_folder(tmp_path: Path) -> None:
    with held_parts(tmp_path / "out.csv") as kept:
        kept.begin("a key")
        (kept.folder / ".notes.tmp").touch()
        kept.finish()
    assert [one.name for one in (tmp_path / "out.csv.parts").iterdir()] == [".notes.tmp"]


def test_a_part_with_a_bit_that_has_changed_is_predicted_again(tmp_path: Path) -> None:
    with held_parts(tmp_path / "out.csv") as kept:
        kept.begin("a key")
        for chunk in range(2):
            kept.keep(0, chunk, Part([f"row {chunk}"], torch.full((1, 2), 0.9)))
        file = kept.folder / "000-000000.safetensors"
        data = bytearray(file.read_bytes())
        place = data.rindex(torch.full((1, 2), 0.9).numpy().tobytes())
        data[place + 3] ^= 0x80  # the sign
        file.write_bytes(data)
        assert [one.examples for one in kept.stored(0)] == []
        kept.finish()
