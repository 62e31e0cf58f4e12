"""What does a layer cost on this device, and is that still true? Latency tables: kept on disk, transactional, one
environment each, every raw time kept; never a guess between two measurements."""

from .compare import MergeReport, ShapeDifference, TableDifference, diff, merge
from .drift import DriftEntry, DriftReport, drift
from .exchange import export_csv, import_csv
from .held import HeldPlateau, are_on_one_line
from .info import TableInfo, describe_table
from .integrity import Contradiction, Disagreement, Outliers, TableCheck, check_table
from .lines import MeasuredLine, measured_lines
from .shipped import shipped_environments, shipped_table
from .table import LatencyTable
from .trtexec import TrtexecImport, import_trtexec

__all__ = [
    "Contradiction",
    "Disagreement",
    "DriftEntry",
    "DriftReport",
    "HeldPlateau",
    "LatencyTable",
    "MeasuredLine",
    "MergeReport",
    "Outliers",
    "ShapeDifference",
    "TableCheck",
    "TableDifference",
    "TableInfo",
    "TrtexecImport",
    "are_on_one_line",
    "check_table",
    "describe_table",
    "diff",
    "drift",
    "export_csv",
    "import_csv",
    "import_trtexec",
    "measured_lines",
    "merge",
    "shipped_environments",
    "shipped_table",
]
