"""What is raised about types; the names are TFF's."""

from fedbridge.jax_core import FedbridgeError


class FederatedTypeError(FedbridgeError, TypeError):
    """A type where another one is needed, or a value that is not of its type."""


class MissingElementError(FedbridgeError, AttributeError):
    """An element that a value does not have."""


class TypeNotAssignableError(FederatedTypeError):
    """Values of one type cannot be taken as values of another."""


class TypesNotEquivalentError(FederatedTypeError):
    """Two types that cannot take each other's values."""


class TypesNotIdenticalError(FederatedTypeError):
    """Two types that are not the same."""


class UnexpectedTypeError(FederatedTypeError):
    """A type of another kind than is needed."""
