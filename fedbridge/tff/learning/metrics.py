"""`tff.learning.metrics`: how the clients' metrics become a round's."""

from fedbridge.jax_core import sum_then_finalize as sum_then_finalize
from fedbridge.tff._errors import missing

__getattr__ = missing("tff.learning.metrics")
