"""MNIST, GTSRB and single photographs: found or downloaded, verified, cached, with their provenance."""

from icstn.datasets._gtsrb import gtsrb
from icstn.datasets._mnist import mnist
from icstn.datasets.dataset import DataError, Dataset, fingerprint

__all__ = ["DataError", "Dataset", "fingerprint", "gtsrb", "mnist"]
