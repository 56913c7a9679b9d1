"""What the declaration of a field says of it."""

from dataclasses import dataclass, fields

import pytest

from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Model, path_fields, setting
from danube_sweep.data.kinds.arena import ArenaData
from danube_sweep.data.kinds.generated import GeneratedData
from danube_sweep.data.kinds.hub import HubData
from danube_sweep.data.kinds.text import TextData

EVERY = [schema for group in (*OPTIONS.values(), *SWEEP_OPTIONS.values()) for schema in group.values()]


@pytest.mark.parametrize("schema", EVERY, ids=lambda schema: schema.__name__)
def test_a_field_is_declared_a_path_to_read_where_its_name_says_so(schema: type) -> None:
    read = {name for name, kind in path_fields(schema).items() if kind != "place"}
    named = {one.name for one in fields(schema) if one.name.endswith("path")}  # type: ignore[arg-type]
    assert read - {"extra", "benchmark_dir"} == named  # a list of files, and a folder


def test_a_path_names_files_or_else_a_folder_or_hub_name() -> None:
    files = {"path": "files", "validation_path": "files"}
    assert path_fields(ArenaData) == {**files, "test_path": "files", "extra": "files"}
    assert path_fields(TextData) == files
    assert path_fields(HubData) == path_fields(Model) == {"path": "folder"}
    assert path_fields(GeneratedData()) == {}


def test_a_field_with_a_default_of_any_kind_can_be_a_path() -> None:
    @dataclass
    class Made:
        one: str = setting("required", path="files")
        two: list[str] = setting("a list", [], path="files")
        three: str = setting("none", "a")

    assert path_fields(Made) == {"one": "files", "two": "files"}
    assert Made().two == [] and Made().two is not Made().two
