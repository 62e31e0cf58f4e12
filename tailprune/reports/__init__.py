"""How does a person see the result? Tables for the terminal, plots, and one self-contained page.

Values come in (core's, and the small ones of `comparison`), renderables, figures and text go out; nothing is decided here
but what the measured differences amount to. matplotlib and jinja2 are imported when a plot or a page is asked for.
"""

from __future__ import annotations

from .canvas import figure_svg, save_figure
from .comparison import Comparison, ComparisonRow, LayerTime, SweepPoint
from .doctor_page import render_doctor_page, write_doctor_page
from .doctor_table import diagnosis_table
from .frontier import FrontierMark, FrontierView, plot_frontier
from .page import ReportPage, StaircaseView, render_page, write_page
from .plots import plot_latency_by_layer, plot_predicted_measured, plot_ratio_sweep, plot_staircase, plot_widths
from .search_plots import plot_search, plot_search_pace
from .staircase_page import render_staircase_page, write_staircase_page
from .survey_page import survey_page, write_survey_page
from .survey_plots import NetworkUse, plot_networks, plot_time_map
from .survey_table import survey_table
from .tables import comparison_table, facts_table, plan_table, staircase_table
from .wave_plots import ModelledCurve, plot_modelled

__all__ = [
    "Comparison",
    "ComparisonRow",
    "FrontierMark",
    "FrontierView",
    "LayerTime",
    "ModelledCurve",
    "NetworkUse",
    "ReportPage",
    "StaircaseView",
    "SweepPoint",
    "comparison_table",
    "diagnosis_table",
    "facts_table",
    "figure_svg",
    "plan_table",
    "plot_frontier",
    "plot_latency_by_layer",
    "plot_modelled",
    "plot_networks",
    "plot_predicted_measured",
    "plot_ratio_sweep",
    "plot_search",
    "plot_search_pace",
    "plot_staircase",
    "plot_time_map",
    "plot_widths",
    "render_doctor_page",
    "render_page",
    "render_staircase_page",
    "save_figure",
    "staircase_table",
    "survey_page",
    "survey_table",
    "write_doctor_page",
    "write_page",
    "write_staircase_page",
    "write_survey_page",
]
