"""What updating a trained model would cost, and the cheapest option that does the job.

`import resque` loads neither torch nor anything else that is heavy: each public name is
imported from its room of the house when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resque.decision.compare import compare
    from resque.decision.comparison import Compared, Comparison
    from resque.decision.drift import Drift
    from resque.decision.option import FromScratch, Keep, Prices, Retrain
    from resque.decision.plan import Plan, plan
    from resque.errors import (
        InputError,
        MissingExtraError,
        NotComparableError,
        ResqueError,
        ResqueWarning,
    )
    from resque.forecasting.budget import Budget
    from resque.forecasting.forecast import Estimate, Forecast
    from resque.forecasting.forecaster import Forecaster, forecast
    from resque.forecasting.preflight import Preflight, load_preflight, preflight
    from resque.history.records import (
        Accuracy,
        Component,
        DataSizes,
        EnergyReading,
        Grid,
        Hardware,
        Plateau,
        Recipe,
    )
    from resque.history.store import History
    from resque.history.update import Point, Update
    from resque.index.profile import ClassProfile, load_profile, profile
    from resque.index.shift import ShiftIndex, examples_needed, shift_index
    from resque.index.task import TaskIndex, task_index
    from resque.measure.calibration import Calibration, calibrate
    from resque.measure.carbon import carbon_kg, grid
    from resque.measure.energy import Meter, open_meter
    from resque.measure.probe import Probe, probe
    from resque.measure.recorder import Recorder, recording
    from resque.measure.retrain import Retrained, retrain
    from resque.reporting.html import Report, report
    from resque.representation.signature import Signature

    __version__: str

_ROOMS = {
    "Accuracy": "resque.history.records",
    "Budget": "resque.forecasting.budget",
    "Calibration": "resque.measure.calibration",
    "ClassProfile": "resque.index.profile",
    "Compared": "resque.decision.comparison",
    "Comparison": "resque.decision.comparison",
    "Component": "resque.history.records",
    "DataSizes": "resque.history.records",
    "Drift": "resque.decision.drift",
    "EnergyReading": "resque.history.records",
    "Estimate": "resque.forecasting.forecast",
    "Forecast": "resque.forecasting.forecast",
    "Forecaster": "resque.forecasting.forecaster",
    "FromScratch": "resque.decision.option",
    "Grid": "resque.history.records",
    "Hardware": "resque.history.records",
    "History": "resque.history.store",
    "InputError": "resque.errors",
    "Keep": "resque.decision.option",
    "Meter": "resque.measure.energy",
    "MissingExtraError": "resque.errors",
    "NotComparableError": "resque.errors",
    "Plan": "resque.decision.plan",
    "Plateau": "resque.history.records",
    "Point": "resque.history.update",
    "Preflight": "resque.forecasting.preflight",
    "Prices": "resque.decision.option",
    "Probe": "resque.measure.probe",
    "Recipe": "resque.history.records",
    "Recorder": "resque.measure.recorder",
    "Report": "resque.reporting.html",
    "ResqueError": "resque.errors",
    "ResqueWarning": "resque.errors",
    "Retrain": "resque.decision.option",
    "Retrained": "resque.measure.retrain",
    "ShiftIndex": "resque.index.shift",
    "Signature": "resque.representation.signature",
    "TaskIndex": "resque.index.task",
    "Update": "resque.history.update",
    "calibrate": "resque.measure.calibration",
    "carbon_kg": "resque.measure.carbon",
    "compare": "resque.decision.compare",
    "examples_needed": "resque.index.shift",
    "forecast": "resque.forecasting.forecaster",
    "grid": "resque.measure.carbon",
    "load_preflight": "resque.forecasting.preflight",
    "load_profile": "resque.index.profile",
    "open_meter": "resque.measure.energy",
    "plan": "resque.decision.plan",
    "preflight": "resque.forecasting.preflight",
    "probe": "resque.measure.probe",
    "profile": "resque.index.profile",
    "recording": "resque.measure.recorder",
    "report": "resque.reporting.html",
    "retrain": "resque.measure.retrain",
    "shift_index": "resque.index.shift",
    "task_index": "resque.index.task",
}

__all__ = [
    "Accuracy",
    "Budget",
    "Calibration",
    "ClassProfile",
    "Compared",
    "Comparison",
    "Component",
    "DataSizes",
    "Drift",
    "EnergyReading",
    "Estimate",
    "Forecast",
    "Forecaster",
    "FromScratch",
    "Grid",
    "Hardware",
    "History",
    "InputError",
    "Keep",
    "Meter",
    "MissingExtraError",
    "NotComparableError",
    "Plan",
    "Plateau",
    "Point",
    "Preflight",
    "Prices",
    "Probe",
    "Recipe",
    "Recorder",
    "Report",
    "ResqueError",
    "ResqueWarning",
    "Retrain",
    "Retrained",
    "ShiftIndex",
    "Signature",
    "TaskIndex",
    "Update",
    "calibrate",
    "carbon_kg",
    "compare",
    "examples_needed",
    "forecast",
    "grid",
    "load_preflight",
    "load_profile",
    "open_meter",
    "plan",
    "preflight",
    "probe",
    "profile",
    "recording",
    "report",
    "retrain",
    "shift_index",
    "task_index",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from resque.representation.signature import installed_version

        return installed_version()
    if name not in _ROOMS:
        raise AttributeError(f"module 'resque' has no attribute {name!r}")
    value = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
