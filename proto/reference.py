"""Write the gRPC reference from the contracts and their comments: `python proto/reference.py DIRECTORY`.

Developers run it by `make docs`.
"""

import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc  # type: ignore[import-untyped]

CONTRACTS: Final = Path(__file__).parent
NAME: Final = "grpc.md"
_HEAD: Final = """# gRPC

Made from the contracts in [proto/](../proto) by `make docs`. Callers show a key as metadata
`authorization: Bearer KEY`: robots theirs, services theirs by role. The server reflects, and answers
`grpc.health.v1.Health`.
"""

# Where things are in a descriptor, by which their comments are found.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _METHODS, _VALUES = 2, 3, 2, 2

Comments = dict[tuple[int, ...], str]


def reference() -> str:
    """The reference as Markdown. Raises `SystemExit` if a contract is wrong."""
    with TemporaryDirectory() as directory:
        out = Path(directory) / "set"
        paths = sorted(CONTRACTS.rglob("*.proto"))
        arguments = [
            f"--proto_path={CONTRACTS}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--descriptor_set_out={out}",
            "--include_source_info",
            *map(str, paths),
        ]
        if protoc.main(["protoc", *arguments]) != 0:
            sys.exit("the contracts could not be read")
        contracts = FileDescriptorSet.FromString(out.read_bytes())
    return "\n".join([_HEAD, *(line for file in contracts.file for line in _file(file))]) + "\n"


def _file(file: FileDescriptorProto) -> Iterator[str]:
    comments: Comments = {
        tuple(one.path): " ".join((one.leading_comments or one.trailing_comments).split())
        for one in file.source_code_info.location
    }
    yield f"## {file.package}\n"
    yield f"[{file.name}](../proto/{file.name})\n"
    for number, service in enumerate(file.service):
        yield from _service(service, comments, (_SERVICES, number))
    for number, message in enumerate(file.message_type):
        yield from _message(message, message.name, comments, (_MESSAGES, number))
    for number, enum in enumerate(file.enum_type):
        yield from _enum(enum, comments, (_ENUMS, number))


def _service(service: ServiceDescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield from _title(service.name, comments.get(path))
    yield from _table("method", "takes", "gives", "")
    for number, method in enumerate(service.method):
        takes = f"{'stream ' * method.client_streaming}`{_short(method.input_type)}`"
        gives = f"{'stream ' * method.server_streaming}`{_short(method.output_type)}`"
        yield _row(f"`{method.name}`", takes, gives, comments.get((*path, _METHODS, number), ""))
    yield ""


def _message(message: DescriptorProto, name: str, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    if message.options.map_entry:
        return
    yield from _title(name, comments.get(path))
    if message.field:
        yield from _table("field", "type", "")
        for number, field in enumerate(message.field):
            yield _row(f"`{field.name}`", _type(field), comments.get((*path, _FIELDS, number), ""))
        yield ""
    for number, nested in enumerate(message.nested_type):
        yield from _message(nested, f"{name}.{nested.name}", comments, (*path, _NESTED, number))


def _enum(enum: EnumDescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield from _title(enum.name, comments.get(path))
    yield from _table("value", "")
    for number, value in enumerate(enum.value):
        yield _row(f"`{value.name}`", comments.get((*path, _VALUES, number), ""))
    yield ""


def _title(name: str, comment: str | None) -> Sequence[str]:
    return [f"### {name}\n", f"{comment}\n"] if comment else [f"### {name}\n"]


def _table(*headings: str) -> Sequence[str]:
    return [_row(*headings), _row(*("---" for _ in headings))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _type(field: FieldDescriptorProto) -> str:
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    name = f"`{_short(field.type_name)}`" if field.type_name else kind
    many = field.label == FieldDescriptorProto.LABEL_REPEATED
    return f"repeated {name}" if many else name


def _short(name: str) -> str:
    """The name of a type without its package."""
    return ".".join(part for part in name.split(".") if part[:1].isupper()) or name


if __name__ == "__main__":
    (Path(sys.argv[1]) / NAME).write_text(reference())
