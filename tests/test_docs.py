"""The documentation is true: its blocks run, its links lead somewhere, it names what there is.

Blocks of one page run in order, in one folder and one namespace. A line of a shell block is a
command of ours, run in this process; what a console block shows below it must be what it prints.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
import shlex
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import resque
from resque.cli import app, main
from resque.errors import MissingExtraError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCE = Path(resque.__file__).parent
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md"]
MODULES = sorted(
    ".".join(("resque", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
)

# A shell block is left out only if it sets something up, or if it stands for the reader's own
# files; then its commands must at least be understood.
SETS_UP = ("needs the network", "sets up an environment")
OWN_FILES = "needs the user's own images and weights"
SET_UP = ("git clone ", "cd ", "make ", "pip install ", "python -m venv ", "python -m pip install ")
SHELLS = ("bash", "console", "sh", "shell")
SHOWN_ONLY = ("text", "toml", "yaml", "json", "bibtex")
# Pages may show what an extra is for; without the extra they are skipped, by name.
OPTIONAL = ("jinja2", "matplotlib", "timm", "torchvision", "transformers")

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>\S*)[^\n]*\n"
    r"(?P<body>.*?)^(?P=indent)(?P=ticks) *$",
    re.MULTILINE | re.DOTALL,
)
_NOT_RUN = re.compile(r"<!-- not run: (.*?) -->\s*\Z")


def test_pages_exist() -> None:
    """The pages that the README and the site are made of are there."""
    expected = {"index.md", "method.md", "limits.md", "reference.md", "citing.md", "cli.md"}
    assert expected <= {path.name for path in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every Python and shell block of a page does what the page says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    namespace = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language in SHOWN_ONLY:
            continue
        if block.not_run is not None:
            assert block.language in SHELLS, f"{block.place}: Python is always run"
            assert_rightly_not_run(block)
            continue
        try:
            if block.language == "python":
                exec(block.code(), namespace)
                continue
            for command, shown in block.commands():
                program, *arguments = shlex.split(command, comments=True)
                assert program == "resque", f"{block.place}: {command!r} is not ours to run"
                capsys.readouterr()
                status = main(arguments)
                printed, complaints = capsys.readouterr()
                assert status == 0, f"{block.place}: {command!r} failed: {complaints}"
                assert_shown(shown, printed, block.place)
        except (ModuleNotFoundError, MissingExtraError) as error:
            if any(name in str(error) for name in OPTIONAL):
                pytest.skip(f"{block.place} needs an extra: {error}")
            raise
        finally:
            # A module that a page writes must not be found by the next page that writes one.
            for name, module in list(sys.modules.items()):
                if str(tmp_path) in (getattr(module, "__file__", None) or ""):
                    del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_fences_have_a_known_language(page: Path) -> None:
    """No block escapes being run by an odd label or by none."""
    for block in blocks(page):
        assert block.language in ("python", *SHELLS, *SHOWN_ONLY), block.place


@pytest.mark.parametrize("page", LINKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    """Every relative link leads to a file, and to a heading in it where it names one."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose) + re.findall(
        r"^\[[^]]+\]: (\S+)", prose, re.M
    )
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link} names no heading"


@pytest.mark.parametrize("name", resque.__all__)
def test_public_name_is_in_the_reference(name: str) -> None:
    """Every public name has a line in the reference."""
    rows = re.findall(r"^\| `(\w+)", (DOCS / "reference.md").read_text(encoding="utf-8"), re.M)
    assert name in rows


def test_reference_names_only_what_is_public() -> None:
    """The reference gives no line to a name that is gone."""
    rows = re.findall(r"^\| `(\w+)", (DOCS / "reference.md").read_text(encoding="utf-8"), re.M)
    assert sorted(resque.__all__) == sorted(rows)


def test_reference_names_only_attributes_that_exist() -> None:
    """What the reference lists after a class with a dot is an attribute of that class."""
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    for name, line in re.findall(r"^\| `([A-Z]\w+)` \| (.*)$", text, re.M):
        found = getattr(resque, name)
        listed = set(re.findall(r"`\.(\w+)", line))
        assert set() == listed - set(dir(found)), name


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))
def test_command_is_documented(name: str) -> None:
    """The page of the command line names every command."""
    assert f"resque {name}" in (DOCS / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every example in a module's docstrings prints what it says."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    # An example that doctest does not find would never run.
    assert len(re.findall(r"^\s*>>> ", inspect.getsource(module), re.M)) == attempted


@pytest.mark.parametrize(
    "name", [name for name in resque.__all__ if not name.endswith(("Error", "Warning"))]
)
def test_public_docstring_has_an_example(name: str) -> None:
    """Every public function and class shows how it is used."""
    assert "\nExample:\n    >>> " in (inspect.getdoc(getattr(resque, name)) or "")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_name_the_parameters(name: str) -> None:
    """Args and Attributes name what there is: no more, no less, in the same order."""
    module = importlib.import_module(name)
    public = [key for key in resque.__all__ if getattr(resque, key).__module__ == name]
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        told = ast.get_docstring(node) or ""
        if isinstance(node, ast.FunctionDef):
            if "\nArgs:" in told or (node in tree.body and node.name in public):
                assert parameters(node) == entries(told, "Args"), f"{name}.{node.name}"
            continue
        if "\nArgs:" in told:
            (constructor,) = (n for n in node.body if getattr(n, "name", "") == "__init__")
            assert isinstance(constructor, ast.FunctionDef)
            assert parameters(constructor) == entries(told, "Args"), f"{name}.{node.name}"
        if "\nAttributes:" in told:
            named = entries(told, "Attributes")
            fields = [
                n.target.id
                for n in node.body
                if isinstance(n, ast.AnnAssign)
                and n.target.id != "_"
                and not ast.unparse(n.annotation).startswith("ClassVar")
            ]
            if any(getattr(base, "id", "").startswith("_") for base in node.bases):
                # What is taken over from a class that is not public is told of here as well.
                fields = [field.name for field in dataclasses.fields(getattr(module, node.name))]
            if "those of `" in told.partition("\n")[0]:
                # Another class tells of the rest.
                fields = [field for field in fields if field in named]
            assert fields == named, f"{name}.{node.name}"


def test_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    """The site builds without a warning, and no page of it loads anything over the network."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    remote = re.compile(
        r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]+"
    )
    for page in pages:
        fetched = remote.findall(page.read_text(encoding="utf-8"))
        assert not fetched, f"{page.name} fetches {fetched}"
    for sheet in (tmp_path / "site").rglob("*.css"):
        fetched = re.findall(r"url\([\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8"))
        assert not fetched, f"{sheet.name} fetches something"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\nx = 1\n```\n", [("python", None)]),
        ("<!-- not run: because -->\n\n```bash\npip install x\n```\n", [("bash", "because")]),
        ("<!-- not run: a -->\ntext\n```bash\nresque doctor\n```\n", [("bash", None)]),
        ("- item\n\n    ```console\n    $ resque doctor\n    ```\n", [("console", None)]),
        ("````text\n```python\n```\n````\n", [("text", None)]),
    ],
)  # fmt: skip
def test_blocks_are_found(
    text: str, expected: list[tuple[str, str | None]], tmp_path: Path
) -> None:
    """A block is found in any indentation, and a comment counts right above it only."""
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    assert expected == [(block.language, block.not_run) for block in blocks(page)]


def test_commands_are_found() -> None:
    """Console blocks mark commands with $, others need not; a backslash continues a line."""
    console = Block("page:1", 1, "console", "$ resque a \\\n    b\nshown\nmore\n$ resque c\n", None)
    expected = [["resque a b", "shown\nmore\n"], ["resque c", ""]]
    assert expected == list(console.commands())
    bash = Block("page:1", 1, "bash", "# said\nresque a\n$ resque b\n", None)
    expected = [["resque a", ""], ["resque b", ""]]
    assert expected == list(bash.commands())


def test_shown_output_must_be_printed() -> None:
    """Output that a page shows and a command does not print is noticed."""
    assert_shown("value 0.1...\n", "value 0.1234\n", "page:1")
    with pytest.raises(AssertionError):
        assert_shown("value 0.2...\n", "value 0.1234\n", "page:1")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    place: str
    line: int
    language: str
    body: str
    not_run: str | None

    def code(self):
        """Return the compiled block, whose tracebacks name the page and its line."""
        return compile("\n" * self.line + self.body, self.place, "exec")

    def commands(self) -> list[list[str]]:
        """Return each command with the output that the page shows below it."""
        lines = re.sub(r" *\\\n\s*", " ", self.body).splitlines()
        found: list[list[str]] = []
        for line in lines:
            if line.startswith("$ "):
                found.append([line[2:], ""])
            elif self.language == "console":
                assert found, f"{self.place}: output before any command"
                found[-1][1] += f"{line}\n"
            elif line.strip() and not line.startswith("#"):
                found.append([line, ""])
        return found


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        reason = _NOT_RUN.search(text[: match.start()])
        yield Block(
            place=f"{page.name}:{line}",
            line=line,
            language=match["language"],
            body=re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE),
            not_run=reason[1] if reason else None,
        )


def assert_rightly_not_run(block: Block) -> None:
    for command, _ in block.commands():
        if block.not_run in SETS_UP:
            assert command.startswith(SET_UP), f"{block.place}: {command!r} sets nothing up"
            continue
        assert block.not_run == OWN_FILES, f"{block.place}: {block.not_run!r} is no reason"
        program, name, *arguments = shlex.split(command, comments=True)
        assert program == "resque", f"{block.place}: {command!r} is not ours"
        # Raises where an option does not exist or a needed one is missing.
        typer.main.get_command(app).commands[name].make_context(name, arguments)


def assert_shown(shown: str, printed: str, place: str) -> None:
    """Compare as doctest does: ... stands for anything, and white space for white space."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if shown.strip():
        agrees = doctest.OutputChecker().check_output(shown, printed, flags)
        assert agrees, f"{place} shows\n{shown}\nand this was printed:\n{printed}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that both GitHub and the site give to a page's headings."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose, re.MULTILINE):
        plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
        kept = re.sub(r"[^\w\s-]", "", plain).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", kept))
    return found


def parameters(node: ast.FunctionDef) -> list[str]:
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs]
    names = [argument.arg for argument in (*named, arguments.kwarg) if argument is not None]
    return [name for name in names if name not in ("self", "cls")]


def entries(docstring: str, section: str) -> list[str]:
    """Return the names under a heading of a Google docstring."""
    match = re.search(rf"^{section}:\n((?:    .*\n|\n)*)", f"{docstring}\n", re.MULTILINE)
    return re.findall(r"^    \**(\w+):", match[1], re.MULTILINE) if match else []
