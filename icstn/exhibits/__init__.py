"""Drawing only: arrays and Records in, one figure or one table out. Nothing here trains."""
