"""Keys that payloads are encrypted with in tests."""

from base64 import b64encode

OLDER = f"older:{b64encode(b'o' * 32).decode()}"
NEWER = f"newer:{b64encode(b'n' * 32).decode()}"
