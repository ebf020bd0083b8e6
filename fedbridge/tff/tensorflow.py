"""`tff.tensorflow`: computations whose body is TensorFlow."""

from fedbridge.tff import _graphs
from fedbridge.tff._computations import decorator
from fedbridge.tff._errors import missing
from fedbridge.tff.types import to_type as to_type

computation = decorator(_graphs.compile_tensorflow)

__getattr__ = missing("tff.tensorflow")
