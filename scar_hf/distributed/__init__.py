"""The same scores from several machines."""

from .ray_engine import score_shards_on_ray

__all__ = ["score_shards_on_ray"]
