"""Judging only: Records in, numbers and verdicts out. Nothing here trains or draws."""
