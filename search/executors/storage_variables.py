"""Hands the driver's variables for object stores (AWS_..., GOOGLE_...) to workers on other machines.

They travel as arguments of the workers, not in Ray's runtime environment, which Ray writes to its logs and shows on its
dashboard.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

PREFIXES = ("AWS_", "GOOGLE_")

MACHINES_OWN = ("AWS_CONTAINER_", "AWS_EXECUTION_ENV", "AWS_EC2_METADATA_DISABLED", "AWS_LAMBDA_")
"""Beginnings of variables that describe the driver's machine, which would be wrong on another."""

FILES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""Variables that name a file, which the worker's machine may lack."""

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Variables that belong together: keys of two identities are never mixed."""

IDENTITIES = (*CREDENTIALS, "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Variables that give a worker's machine an identity of its own."""


@dataclass(frozen=True, slots=True)
class StorageVariables:
    """Variables of the driver; their values are not printed."""

    values: Mapping[str, str] = field(repr=False)


def storage_variables() -> StorageVariables:
    """Return the variables of this process that concern object stores."""
    found = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}
    return StorageVariables({name: value for name, value in found.items() if not name.startswith(MACHINES_OWN)})


def adopt(variables: StorageVariables) -> None:
    """Set the driver's variables in this worker's process, except those that its machine sets itself.

    A machine with an identity of its own keeps it. A file that is missing here is left out.
    """
    has_identity = any(os.environ.get(name) for name in IDENTITIES)
    for name, value in variables.values.items():
        if has_identity and name in IDENTITIES:
            continue
        if name in FILES and not os.path.exists(value):
            continue
        os.environ.setdefault(name, value)
