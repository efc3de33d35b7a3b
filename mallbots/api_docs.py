"""`python -m mallbots.api_docs DIRECTORY` writes the OpenAPI document there. Developers run it by `make docs`."""

import json
import sys
from pathlib import Path

from api.app import create_app
from mallbots.settings import DATABASES, Settings


def openapi_document() -> str:
    """The document that every mall serves at `/openapi.json`. Nothing is connected to."""
    nowhere = {f"{name}_database_url": "postgresql+asyncpg://nobody@nowhere/none" for name in DATABASES}
    settings = Settings.model_validate({**nowhere, "nats_url": "nats://nowhere"})
    return json.dumps(create_app(settings).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) / "openapi.json").write_text(openapi_document())
