"""From energy to carbon: the grid as it was given, never guessed."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from resque.errors import InputError, nearest
from resque.history.records import EnergyReading, Grid

# The annual averages of whole countries by Our World in Data, one year per country.
_TABLE = "codecarbon/data/private_infra/global_energy_mix.json"
_EXPECTED = "expected grams of CO2e per kWh, or a three-letter country code such as 'FRA'"


def grid(value: Grid | float | str | None, *, pue: float = 1.0) -> Grid | None:
    """Return the grid that electricity comes from, in grams of CO2 equivalent per kWh.

    There is no default: where no grid is given, no carbon is computed. The numbers of countries
    are averages over a year and the whole country; your contract or your region may differ much.

    Args:
        value: grams per kWh; the three-letter code (ISO 3166-1) of a country, in any case; a
            Grid, which is returned as it is; or None.
        pue: power usage effectiveness of the data centre, 1 or more: energy bought per energy
            used by its computers.

    Returns:
        None where `value` is None.

    Raises:
        InputError: the number or the PUE is impossible, or there is no such country.

    Example:
        >>> grid("FRA").grams_per_kwh
        56.039
        >>> str(grid(24, pue=1.2))
        '24 g CO2e/kWh (own number, given), PUE 1.2'
    """
    if not _is_number(pue) or pue < 1:
        raise InputError(f"PUE must be 1 or more; got {pue!r}.")
    if isinstance(value, Grid) and pue != 1:
        raise InputError(
            f"The grid has its PUE already, {value.pue:g}; got pue={pue:g} as well. Give it where "
            "the grid is made."
        )
    if value is None or isinstance(value, Grid):
        return value
    grams: float
    if isinstance(value, str):
        try:
            grams = float(value)
        except ValueError:
            return _of_country(value, pue)
    else:
        grams = value
    return Grid(grams_per_kwh=_checked_grams(grams), name="own number", pue=float(pue))


def countries() -> dict[str, str]:
    """Return the name of each country that `grid` knows, by its three-letter code.

    Example:
        >>> countries()["ISL"]
        'Iceland'
    """
    return {code: row["country_name"] for code, row in _table().items()}


def carbon_kg(
    energy: EnergyReading | float | None, grid: Grid | float | str | None
) -> float | None:
    """Return the carbon of an amount of energy, in kg of CO2 equivalent. Equation 14.

    Args:
        energy: a reading, or kilowatt-hours.
        grid: where the electricity comes from; see `grid`.

    Returns:
        None where the energy or the grid is not known.

    Example:
        >>> round(carbon_kg(2.0, grid("FRA", pue=1.5)), 6)
        0.168117
    """
    kwh = energy.kwh if isinstance(energy, EnergyReading) else energy
    costed = _grid_of(grid)
    return None if kwh is None or costed is None else costed.kg_of(kwh)


# By another name, because an argument above is called `grid`.
_grid_of = grid


def table_source() -> str:
    """Return where the numbers of countries are from."""
    return f"Our World in Data, as shipped with codecarbon {distribution('codecarbon').version}"


def _of_country(text: str, pue: float) -> Grid:
    row = _table().get(text.upper())
    if row is None:
        raise InputError(f"There is no grid {text!r}; {_EXPECTED}.{_suggestion(text)}")
    return Grid(
        grams_per_kwh=float(row["carbon_intensity"]),
        name=row["country_name"],
        code=text.upper(),
        year=int(row["year"]),
        source=table_source(),
        pue=float(pue),
    )


def _checked_grams(value: Any) -> float:
    if not _is_number(value) or value < 0:
        raise InputError(f"There is no grid {value!r}; {_EXPECTED}, 0 or more.")
    # The cleanest grids of the table are above 10 g, so this can only be kilograms.
    if 0 < value < 1:
        raise InputError(
            f"A grid of {value:g} g CO2e per kWh is cleaner than any there is. For {value:g} kg "
            f"say {value * 1000:g}."
        )
    return float(value)


def _suggestion(text: str) -> str:
    names = {name.casefold(): code for code, name in countries().items()}
    code = names.get(text.casefold()) or _three_letters(text)
    if code in _table():
        return f" Did you mean {code!r} ({countries()[code]})?"
    said = nearest(text.upper(), _table())
    # Of a longer word the name is meant.
    close = nearest(text.casefold(), names, limit=1)
    name = close.partition("'")[2].partition("'")[0]
    if len(text) > 3 and name in names:
        return f" Did you mean {names[name]!r} ({countries()[names[name]]})?"
    return said


def _three_letters(text: str) -> str | None:
    """Return the code of three letters for one of two, "FR", or for any official name."""
    import pycountry

    try:
        return str(pycountry.countries.lookup(text).alpha_3)
    except LookupError:
        return None


@cache
def _table() -> dict[str, dict[str, Any]]:
    # importlib.resources would import codecarbon, which takes a while and sets up a logger.
    path = Path(str(distribution("codecarbon").locate_file(_TABLE)))
    table: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return table


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
