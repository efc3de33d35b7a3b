"""What interceptors do around a method, whichever of the four kinds it is."""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from grpc import aio

Context = aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Any]]
"""A method as a coroutine function: what it streams it writes to the context, otherwise it returns its answer."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


def around(handler: Handler, wrap: Callable[[Method], Method]) -> Handler:
    """The handler with its method wrapped."""
    method, make = _parts(handler)
    return make(wrap(_as_coroutine(method)), handler.request_deserializer, handler.response_serializer)


def is_stream(handler: Handler) -> bool:
    """Whether calls of the method may last, as streams of either side do."""
    return handler.request_streaming or handler.response_streaming


def _parts(handler: Handler) -> tuple[Any, Callable[..., Handler]]:
    if handler.request_streaming:
        if handler.response_streaming:
            return handler.stream_stream, grpc.stream_stream_rpc_method_handler
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler


def _as_coroutine(method: Any) -> Method:
    if not inspect.isasyncgenfunction(method):
        found: Method = method
        return found

    async def write_all(request: Any, context: Context) -> None:
        async with aclosing(method(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)

    return write_all
