"""Models of the standard tasks, as flax modules; imports flax."""

from fedbridge.models._emnist import (
    emnist_2nn as emnist_2nn,
    emnist_autoencoder as emnist_autoencoder,
    emnist_cnn as emnist_cnn,
    emnist_original_fedavg_cnn as emnist_original_fedavg_cnn,
    softmax_regression as softmax_regression,
)
from fedbridge.models._from_flax import from_flax as from_flax
from fedbridge.models._losses import (
    accuracy as accuracy,
    binary_cross_entropy as binary_cross_entropy,
    clipped_binary_cross_entropy as clipped_binary_cross_entropy,
    clipped_cross_entropy as clipped_cross_entropy,
    cross_entropy as cross_entropy,
)
from fedbridge.models._resnet import (
    resnet18 as resnet18,
    resnet34 as resnet34,
    resnet50 as resnet50,
)
from fedbridge.models._shakespeare import shakespeare_lstm as shakespeare_lstm
from fedbridge.models._stackoverflow import (
    stackoverflow_lstm as stackoverflow_lstm,
    stackoverflow_tag_prediction as stackoverflow_tag_prediction,
)
from fedbridge.models._tokens import (
    mean_over_positions as mean_over_positions,
    mean_over_sentences as mean_over_sentences,
    mean_over_tokens as mean_over_tokens,
)
