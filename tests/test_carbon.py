"""The grid: numbers, countries, and what is refused rather than guessed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from resque.errors import InputError
from resque.history.records import Component, EnergyReading, Grid
from resque.measure.carbon import carbon_kg, countries, grid, table_source
from updates import update_of


def test_no_grid_is_no_grid() -> None:
    """Nothing stands in for a grid that was not given."""
    assert grid(None) is None


# By hand from codecarbon's global_energy_mix.json.
@pytest.mark.parametrize(
    ("code", "grams", "year", "name"),
    [("FRA", 56.039, 2023, "France"), ("fra", 56.039, 2023, "France"),
     ("ABW", 561.224, 2022, "Aruba"), ("Alb", 24.286, 2022, "Albania")],
)  # fmt: skip
def test_countries_by_their_code(code: str, grams: float, year: int, name: str) -> None:
    """A three-letter code in any case gives value, year and source."""
    found = grid(code)
    assert found == Grid(
        grams_per_kwh=grams, name=name, code=code.upper(), year=year, source=table_source()
    )
    assert re.fullmatch(
        r"Our World in Data, as shipped with codecarbon \d+\.\d+\.\d+", found.source
    )


def test_the_whole_table_is_known() -> None:
    """Every country of the table makes a grid of 0 g or more and a year of this century."""
    assert len(countries()) > 200
    for code in countries():
        found = grid(code)
        assert found is not None
        assert found.grams_per_kwh >= 0
        assert found.year > 2000


@pytest.mark.parametrize("value", [0, 24, 23.5, "23.5", 1])
def test_numbers_are_grams_per_kwh(value: float | str) -> None:
    """A number, or the text of one, is taken as it is; 0 is a number too."""
    found = grid(value)
    assert (found.grams_per_kwh, found.code, found.source) == (float(value), None, "given")


def test_a_grid_is_returned_as_it_is() -> None:
    """A Grid passes through, and keeps its PUE."""
    own = Grid(grams_per_kwh=10.0, name="roof", pue=1.3)
    assert grid(own) is own


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("FR", "There is no grid 'FR'; .*Did you mean 'FRA' \\(France\\)"),
        ("us", "There is no grid 'us'; .*Did you mean 'USA' \\(United States\\)"),
        ("Germany", "There is no grid 'Germany'; .*Did you mean 'DEU' \\(Germany\\)"),
        ("Germny", "There is no grid 'Germny'; .*Did you mean 'DEU' \\(Germany\\)"),
        ("frx", "There is no grid 'frx'; .*Did you mean .*'FRA'"),
        ("quebec", "There is no grid 'quebec'; expected grams"),
        ("", "There is no grid ''; expected grams"),
        (-3, "There is no grid -3; expected grams .*0 or more"),
        ("nan", "There is no grid nan; expected grams"),
        (float("inf"), "There is no grid inf; expected grams"),
        (True, "There is no grid True; expected grams"),
        (0.056, "A grid of 0.056 g .* cleaner than any .*say 56\\."),
    ],
)
def test_what_is_no_grid(value: float | str, message: str) -> None:
    """An unknown country or an impossible number is an error, with what was perhaps meant."""
    with pytest.raises(InputError, match=message):
        grid(value)


@pytest.mark.parametrize("pue", [0.9, 0, float("nan"), "1.2", True])
def test_impossible_pue(pue: float) -> None:
    """A data centre cannot use more than it buys."""
    with pytest.raises(InputError, match=f"PUE must be 1 or more; got {re.escape(repr(pue))}"):
        grid(100, pue=pue)


def test_a_second_pue_is_refused() -> None:
    """A grid that was made already has its PUE."""
    with pytest.raises(InputError, match=r"has its PUE already, 1\.3; got pue=1\.5"):
        grid(Grid(grams_per_kwh=10.0, name="roof", pue=1.3), pue=1.5)


def test_carbon_by_hand() -> None:
    """3.6 MJ are 1 kWh; at 500 g and PUE 1.2 that is 0.6 kg."""
    cpu = Component(name="cpu", joules=3.6e6, source="counter", relative_error=0.1)
    reading = EnergyReading(components=(cpu,), seconds=3600.0, meter="replay")
    assert carbon_kg(reading, grid(500, pue=1.2)) == pytest.approx(0.6, rel=1e-12)
    assert carbon_kg(2.5, grid(100)) == pytest.approx(0.25, rel=1e-12)


def test_carbon_without_grid_or_energy_is_none() -> None:
    """What is not known stays unknown."""
    unknown = EnergyReading(components=(), seconds=1.0, meter="none")
    assert carbon_kg(1.0, None) is None
    assert carbon_kg(None, grid(100)) is None
    assert carbon_kg(unknown, grid(100)) is None


def test_the_table_is_read_without_codecarbon() -> None:
    """Asking for a country imports neither codecarbon nor pandas, which take a second."""
    code = (
        "import sys; from resque.measure.carbon import grid; grid('FRA'); "
        "print(sorted({'codecarbon', 'pandas'} & {*sys.modules}), 'resque' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_carbon_of_a_grid_by_its_name() -> None:
    """The code, the number and the grid itself give the same; an update wants the grid."""
    assert carbon_kg(2.0, "FRA") == carbon_kg(2.0, grid("FRA"))
    assert carbon_kg(2.0, 56) == pytest.approx(0.112)
    with pytest.raises(InputError, match=r"resque\.grid\('POL'\)"):
        update_of().on_grid("POL")
