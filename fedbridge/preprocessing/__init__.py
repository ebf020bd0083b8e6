"""TFF's baseline preprocessing, without TensorFlow: client data in, client data out.

Every function takes the data as TFF's loaders give it and returns rows whose batches are `x` and
`y`, with the numbers of TFF's pairs `(x, y)`. Text is turned into ids once, on the host; what is
cheap is done batch by batch, inside the compiled program. `ClientSpec` says how rows become
batches.

Reference: TFF 0.87.0, simulation/baselines/*/*_preprocessing.py.
"""

from fedbridge.preprocessing._cifar100 import (
    cifar100_image_classification as cifar100_image_classification,
    cifar100_whole_images as cifar100_whole_images,
    random_crop_and_flip as random_crop_and_flip,
    random_crops as random_crops,
    standardize as standardize,
)
from fedbridge.preprocessing._client_spec import (
    SHUFFLE_BUFFER_SIZES as SHUFFLE_BUFFER_SIZES,
    ClientSpec as ClientSpec,
)
from fedbridge.preprocessing._emnist import (
    emnist_autoencoder as emnist_autoencoder,
    emnist_character_recognition as emnist_character_recognition,
)
from fedbridge.preprocessing._fingerprint import fingerprint64 as fingerprint64
from fedbridge.preprocessing._shakespeare import (
    SHAKESPEARE_CHARACTERS as SHAKESPEARE_CHARACTERS,
    shakespeare_character_prediction as shakespeare_character_prediction,
    shakespeare_special_tokens as shakespeare_special_tokens,
)
from fedbridge.preprocessing._stackoverflow import (
    sentence_ids as sentence_ids,
    stackoverflow_special_tokens as stackoverflow_special_tokens,
    stackoverflow_tag_prediction as stackoverflow_tag_prediction,
    stackoverflow_word_prediction as stackoverflow_word_prediction,
    tag_ids as tag_ids,
    word_ids as word_ids,
)
from fedbridge.preprocessing._tokens import SpecialTokens as SpecialTokens
from fedbridge.preprocessing._vocabulary import Vocabulary as Vocabulary
