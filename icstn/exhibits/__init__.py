"""Drawing only: arrays and Records in, one figure or one table out. Nothing here trains."""

from icstn.extras import require

require("exhibits", "matplotlib", "pandas")
