"""Records to tables, figures and one HTML page. Reads files only; imports no JAX.

matplotlib, rich and jinja2 are loaded when first needed, so importing this package is light.
"""

from ._activation import activation_tables as activation_tables
from ._few_shot import adaptation_table as adaptation_table
from ._few_shot import few_shot_side_by_side as few_shot_side_by_side
from ._few_shot import few_shot_table as few_shot_table
from ._few_shot_figures import adaptation_figure as adaptation_figure
from ._few_shot_figures import training_figure as training_figure
from ._figures import learning_curves as learning_curves
from ._figures import meta_progress as meta_progress
from ._figures import regret_bounds as regret_bounds
from ._geometry_figures import activation_by_round as activation_by_round
from ._geometry_figures import activation_by_step as activation_by_step
from ._geometry_figures import geometry_rates as geometry_rates
from ._held_out import held_out_tables as held_out_tables
from ._held_out import one_task_tables as one_task_tables
from ._held_out import standing_table as standing_table
from ._held_out import steps_by_task_table as steps_by_task_table
from ._hypergradients import hypergradient_tables as hypergradient_tables
from ._inspect import active_components as active_components
from ._inspect import inspect_table as inspect_table
from ._inspect import inspect_text as inspect_text
from ._made_by import record_table as record_table
from ._maps import map_tables as map_tables
from ._online import online_medians_table as online_medians_table
from ._online import online_table as online_table
from ._online_bounds import online_bounds_table as online_bounds_table
from ._online_figures import online_figure as online_figure
from ._online_network import online_network_table as online_network_table
from ._online_network import online_network_tables as online_network_tables
from ._page import html as html
from ._paper import PAPERS as PAPERS
from ._paper import S000_FIGURE1 as S000_FIGURE1
from ._paper import S000_FIGURE4 as S000_FIGURE4
from ._paper import S000_TABLE1_LENET as S000_TABLE1_LENET
from ._paper import S000_TABLE1_MLP as S000_TABLE1_MLP
from ._paper import S000_TABLE2 as S000_TABLE2
from ._paper import S002_FIGURE1 as S002_FIGURE1
from ._paper import S004_TABLE1 as S004_TABLE1
from ._quadratics import quadratic_tables as quadratic_tables
from ._records import Run as Run
from ._result import write_result as write_result
from ._run_figures import write_figures as write_figures
from ._summaries import summary_tables as summary_tables
from ._summaries import write_markdown as write_markdown
from ._table import Cell as Cell
from ._table import Column as Column
from ._table import Table as Table
from ._tables import assumption_table as assumption_table
from ._tables import certificate_table as certificate_table
from ._tables import comparison_table as comparison_table
from ._tables import side_by_side as side_by_side
from ._trajectories import trajectories as trajectories
