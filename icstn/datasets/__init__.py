"""MNIST, GTSRB, photographs and folders of one's own: found or downloaded, and verified."""

from icstn.extras import require

require("data", "filelock", "PIL", "platformdirs", "pooch", "tqdm")

from icstn.datasets._gtsrb import gtsrb, gtsrb_or_stand_in
from icstn.datasets._mnist import mnist
from icstn.datasets.cache import cache_dir
from icstn.datasets.catalog import CREDITS, Credit, DataStatus, fetch, status
from icstn.datasets.dataset import DataError, Dataset, UnavailableError, fingerprint
from icstn.datasets.folder import image_files, image_folder
from icstn.datasets.images import Scene, photograph, planar_frame, planar_scene
from icstn.datasets.resolution import reduced
from icstn.datasets.signs import SIGNS
from icstn.datasets.splits import split_validation
from icstn.datasets.standin import gtsrb_stand_in

__all__ = [
    "CREDITS",
    "SIGNS",
    "Credit",
    "DataError",
    "DataStatus",
    "Dataset",
    "Scene",
    "UnavailableError",
    "cache_dir",
    "fetch",
    "fingerprint",
    "gtsrb",
    "gtsrb_or_stand_in",
    "gtsrb_stand_in",
    "image_files",
    "image_folder",
    "mnist",
    "photograph",
    "planar_frame",
    "planar_scene",
    "reduced",
    "split_validation",
    "status",
]
