"""What can be dropped before anything is selected: duplicates, near-duplicates, evaluation data, other languages, refusals."""

from .contamination import Contamination
from .curating import Curated, Curation, Step, drop_contaminated, drop_duplicates, drop_near_duplicates, keep_languages
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
    "drop_contaminated",
    "drop_duplicates",
    "drop_near_duplicates",
    "keep_languages",
]
