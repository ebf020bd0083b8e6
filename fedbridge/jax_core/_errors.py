"""What fedbridge raises at its borders: one sentence that says where, what, and the cure.

    FedbridgeError
    ├── ArgumentError               an argument out of range: of an optimizer, aggregator, algorithm
    ├── ClientDataError             a data file, a client, a feature, a record
    ├── ModelError                  a model, layer, loss or metric that cannot be used
    ├── StateError                  a saved state that cannot be loaded
    ├── ClientStepError             user code failed in a client's local step (debug execution)
    ├── TraceError                  a trace that is damaged, incomplete or too new
    ├── NotReplayableError          a trace that holds something the JAX core does not compute
    ├── ReferenceEnvironmentError   no (working) environment in which TFF runs
    └── ScriptError                 a script that fails under TFF

The command line prints the sentence and exits with 2; a library user catches the class.
"""


class FedbridgeError(Exception):
    """Base of every error that fedbridge raises on purpose."""


class ArgumentError(FedbridgeError, ValueError):
    """An argument that cannot be meant, e.g. a negative learning rate; says what is allowed."""


class ClientDataError(FedbridgeError, ValueError):
    """A data file, a client, a feature or a record that cannot be used as it is."""


class ModelError(FedbridgeError, ValueError):
    """A model, layer, loss or metric that fedbridge cannot compute."""


class StateError(FedbridgeError, ValueError):
    """A saved state that is damaged, or belongs to another process."""


class ClientStepError(FedbridgeError, RuntimeError):
    """User code failed in a client's local step; names client, step and batch."""


class TraceError(FedbridgeError, ValueError):
    """A trace that is damaged, incomplete, or of a newer format."""


class NotReplayableError(FedbridgeError, ValueError):
    """A trace that holds something the JAX core does not compute, named."""


class ReferenceEnvironmentError(FedbridgeError, RuntimeError):
    """There is no environment in which the real TFF runs, or it is broken."""


class ScriptError(FedbridgeError, RuntimeError):
    """A script that fails under the real TFF."""
