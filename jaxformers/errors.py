"""Errors a person can mend: one line that says what is wrong, where, and what to do."""


class UserError(Exception):
    """A mistake in what the user gave us. The command line prints its one line and exits 2."""


class ConfigError(UserError):
    """An option, a field or an experiment file that cannot be used."""


class ShardingError(UserError):
    """A parameter or activation that the mesh cannot divide, or that no table row names."""


class DataError(UserError):
    """Data that is missing, empty, malformed, or not what the run was started with."""


class WeightsError(UserError):
    """Published weights with missing, unexpected or misshapen tensors, or a damaged file."""


class CheckpointError(UserError):
    """A run's folder that cannot be written, is in use, or holds no usable checkpoint."""
