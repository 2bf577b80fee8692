"""Scores rows on several machines, with the same results as on one."""

from .ray_engine import score_shards_on_ray

__all__ = ["score_shards_on_ray"]
