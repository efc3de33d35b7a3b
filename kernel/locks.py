"""Names for PostgreSQL's advisory locks, which are numbers."""

import hashlib


def lock_key(*names: object) -> int:
    """The 64-bit number that stands for these names."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
