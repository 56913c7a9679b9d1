"""What is installed from a wheel works where there is no checkout."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, TINY

from danube_sweep import __version__
from danube_sweep.config.options import OPTIONS

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip installs it from a wheel built of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = folder.glob("danube_sweep-*.whl")
    install = ["install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture
def python(site: Path, tmp_path: Path) -> Python:
    """Runs Python in an empty folder, with the installed package first."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return run


def test_the_wheel_holds_the_package_with_its_configs_and_nothing_else(site: Path) -> None:
    (wheel,) = site.parent.glob(f"danube_sweep-{__version__}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        every = archive.namelist()
    names = [name for name in every if ".dist-info/" not in name]
    assert f"danube_sweep-{__version__}.dist-info/licenses/LICENSE" in every
    ours = ("danube_sweep/", "hydra_plugins/danube_sweep/")
    assert all(name.startswith(ours) and "__pycache__" not in name for name in names)
    carried = {name.removeprefix("danube_sweep/") for name in names if name.endswith(".yaml")}
    assert carried == {str(file.relative_to(ROOT)) for file in (ROOT / "conf").rglob("*.yaml")}
    folders = (ROOT / "danube_sweep", ROOT / "hydra_plugins")
    for kind in (".py", ".css", ".js", "py.typed"):
        sources = {str(file.relative_to(ROOT)) for folder in folders for file in folder.rglob(f"*{kind}")}
        assert sources and {name for name in names if name.endswith(kind)} == sources


def test_the_installed_package_explains_itself(python: Python, site: Path) -> None:
    script = "import danube_sweep, danube_sweep.paths as p; print(danube_sweep.__file__, p.conf_dir(), sep='\\n')"
    where = python("-c", script).stdout.split()
    assert where == [str(site / "danube_sweep" / "__init__.py"), str(site / "danube_sweep" / "conf")]
    done = python("-m", "danube_sweep", "--help")
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {group}" in done.stdout for group in OPTIONS)


@pytest.mark.full
def test_the_installed_package_trains(python: Python, tmp_path: Path) -> None:
    small = ["data.rows=60", "trainer.max_steps=2", *TINY]
    done = python("-m", "danube_sweep", "experiment=embedded", "hydra.run.dir=here", *small)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads((tmp_path / "here" / "result.json").read_text())["state"] == "finished"
    assert [file.name for file in tmp_path.iterdir()] == ["here"]


def test_the_installed_package_sweeps_with_its_own_launcher(python: Python, tmp_path: Path) -> None:
    small = ["data.rows=60", "trainer.max_steps=1", *TINY]
    done = python("-m", "danube_sweep", "-m", "seed=0,1", "hydra.sweep.dir=here", *small)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "here").glob("00*/attempts.jsonl"))) == 2
    assert (tmp_path / "here" / "ranking.csv").is_file()
