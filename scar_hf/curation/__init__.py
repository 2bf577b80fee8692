"""Drop rows before selection: duplicates, near-duplicates, evaluation data, other languages, refusals."""

from .contamination import Contamination
from .curating import Curated, Curation, Step, contamination_of, contamination_of_files, curate
from .duplicates import ExactDuplicates
from .languages import Languages
from .near_duplicates import NearDuplicates
from .refusals import Refusals

__all__ = [
    "Contamination",
    "Curated",
    "Curation",
    "ExactDuplicates",
    "Languages",
    "NearDuplicates",
    "Refusals",
    "Step",
    "contamination_of",
    "contamination_of_files",
    "curate",
]
