"""Models of the standard tasks, as flax modules; imports flax."""

from fedbridge.models._emnist import (
    emnist_cnn as emnist_cnn,
    emnist_mlp as emnist_mlp,
    softmax_regression as softmax_regression,
)
from fedbridge.models._from_flax import (
    accuracy as accuracy,
    cross_entropy as cross_entropy,
    from_flax as from_flax,
)
from fedbridge.models._stackoverflow import stackoverflow_lstm as stackoverflow_lstm
