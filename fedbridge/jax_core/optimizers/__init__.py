"""TFF's optimizers (learning/optimizers/) as optax transformations, with TFF's formulas and states.

The state is TFF's: an OrderedDict of the hyperparameters, float32, and of the slots. So a
hyperparameter can be read and set between rounds (`get_hparams`, `set_hparams`), and a state has
the same leaves under the same names as TFF's. Any optax optimizer may stand in their place
whose update needs gradients, state and weights only: not `optax.lbfgs`, which needs losses.

SGD and momentum are optax's own, around TFF's state. The others differ from optax's in where ε
stands, in what they start from, or altogether; Adagrad only where nothing has been seen and ε is 0.
`fed_adam` is the paper's, and not TFF's.
"""

from fedbridge.jax_core.optimizers._adafactor import adafactor as adafactor
from fedbridge.jax_core.optimizers._hparams import (
    Scalar as Scalar,
    Slots as Slots,
    check_hparam as check_hparam,
    get_hparams as get_hparams,
    set_hparams as set_hparams,
    with_hparams as with_hparams,
)
from fedbridge.jax_core.optimizers._moments import (
    adam as adam,
    adamw as adamw,
    fed_adam as fed_adam,
    yogi as yogi,
)
from fedbridge.jax_core.optimizers._schedule import (
    schedule_learning_rate as schedule_learning_rate,
)
from fedbridge.jax_core.optimizers._sgd import adagrad as adagrad, rmsprop as rmsprop, sgdm as sgdm

# TFF's names for them.
build_adafactor = adafactor
build_adagrad = adagrad
build_adam = adam
build_adamw = adamw
build_rmsprop = rmsprop
build_sgdm = sgdm
build_yogi = yogi
