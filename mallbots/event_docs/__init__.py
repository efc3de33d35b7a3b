"""The documents of the events, written from the code: a catalogue for people, AsyncAPI for programs."""

from mallbots.consuming import ALL_ROLES
from mallbots.event_docs.asyncapi import asyncapi
from mallbots.event_docs.catalogue import catalogue
from mallbots.event_docs.documented import Documentation
from mallbots.settings import Settings


def documents() -> dict[str, str]:
    """Each document by the name of its file, for every consumer that there is. No setting changes them."""
    settings = Settings.model_construct()
    documentation = Documentation(role.consumer(settings) for role in ALL_ROLES.values())
    return {"events.md": catalogue(documentation), "asyncapi.yaml": asyncapi(documentation)}
