"""`import resque` is light, every public name is there, and the rooms keep their order."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

import resque

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "sklearn",
    "scipy",
    "matplotlib",
    "rich",
    "typer",
    "safetensors",
    "PIL",
    "numpy",
)

ROOT = Path(__file__).parent.parent


def loaded_by(statement: str) -> set[str]:
    """The packages that a fresh Python has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import resque", "import resque; dir(resque)", "import resque; resque.__version__"],
)
def test_importing_the_package_loads_nothing_heavy(statement: str) -> None:
    """Looking at the names or at the version does not either."""
    loaded = loaded_by(statement)
    assert "resque" in loaded
    assert not loaded.intersection(HEAVY)


def test_errors_load_nothing_heavy() -> None:
    """A program that only catches them need not wait for torch."""
    assert not loaded_by("from resque import InputError, ResqueWarning").intersection(HEAVY)


def test_using_a_name_is_seen_to_load_its_room() -> None:
    """The tests above can fail: what is heavy is loaded when it is used."""
    loaded = loaded_by("import resque; resque.profile(None, ([[1.0, 2.0]], [0]))")
    assert {"numpy", "torch"} <= loaded


def modules() -> list[str]:
    """Every module of the package, by name."""
    found = pkgutil.walk_packages(resque.__path__, "resque.")
    # Importing a __main__ runs the program.
    return [module.name for module in found if not module.name.endswith("__main__")]


def test_every_public_name_resolves_twice_after_every_module_was_imported() -> None:
    """A folder or module of the same name would take its place on the way."""
    names = modules()
    assert "resque.index.profile" in names
    for name in names:
        import_module(name)
    first = {name: getattr(resque, name) for name in resque.__all__}
    second = {name: getattr(resque, name) for name in resque.__all__}
    for name, value in first.items():
        assert value is second[name]
        assert callable(value)
        assert value.__name__ == name
        assert value.__module__.startswith("resque.")


def test_no_public_name_is_the_name_of_a_folder_or_module() -> None:
    """The first import of such a folder would shadow the name."""
    children = {module.name for module in pkgutil.iter_modules(resque.__path__)}
    assert {"representation", "index"} <= children
    assert not children.intersection(resque.__all__)


def test_the_lists_of_public_names_agree() -> None:
    """What is promised, what is found lazily, and what is exported are the same."""
    assert sorted(resque.__all__) == resque.__all__
    assert {*resque.__all__} == {*resque._ROOMS}
    assert {*resque.__all__} <= {*dir(resque)}


def test_a_name_says_where_it_comes_from() -> None:
    """Each public object is defined in the room that the list names."""
    for name, room in resque._ROOMS.items():
        assert getattr(import_module(room), name).__module__ == room


def test_star_import_gives_the_public_names() -> None:
    """In a fresh namespace."""
    namespace: dict[str, object] = {}
    exec("from resque import *", namespace)
    assert {*resque.__all__} <= {*namespace}


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    """With the name, as for any module."""
    with pytest.raises(AttributeError, match="module 'resque' has no attribute 'profil'"):
        resque.profil  # noqa: B018
    assert not hasattr(resque, "forecasting_of_tomorrow")


def test_every_module_says_what_it_is_for() -> None:
    """Rooms and files have a docstring, public functions and classes too."""
    for name in ["resque", *modules()]:
        assert (import_module(name).__doc__ or "").strip(), name
    for name in resque.__all__:
        assert (getattr(resque, name).__doc__ or "").strip(), name


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    if not program.exists():
        pytest.skip("import-linter is not installed")
    return subprocess.run(
        [program, "--config", config, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_data_walk_from_top_to_bottom() -> None:
    """A folder imports only from folders above it."""
    done = lint(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout


def test_walking_back_up_would_be_seen(tmp_path: Path) -> None:
    """The check above can fail: the same rooms in the opposite order break the rule."""
    config = tmp_path / "opposite.toml"
    config.write_text(
        '[tool.importlinter]\nroot_package = "resque"\n'
        '[[tool.importlinter.contracts]]\nname = "opposite"\ntype = "layers"\n'
        'layers = ["resque.representation", "resque.index"]\n'
    )
    done = lint(config)
    assert done.returncode == 1
    assert "resque.index.profile -> resque.representation.signature" in done.stdout


@pytest.mark.slow
def test_importing_the_package_takes_no_time() -> None:
    """At most 0.15 s above a Python that does nothing, best of five."""

    def seconds(statement: str) -> float:
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, timeout=60)
            taken.append(time.perf_counter() - start)
        return min(taken)

    assert seconds("import resque") - seconds("pass") < 0.15
