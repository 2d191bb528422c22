"""Every reader of foreign bytes, by name."""

from data_targets import DATA_TARGETS
from run_targets import RUN_TARGETS

TARGETS = {**DATA_TARGETS, **RUN_TARGETS}
