"""A server made with the official Python SDK: over standard streams, or with a port over Streamable HTTP, both eras."""

import sys
from typing import Annotated

from mcp.server import MCPServer
from pydantic import BaseModel, Field

server = MCPServer("python-tools")


class Sum(BaseModel):
    total: Annotated[int, Field(description="The sum.")]


@server.tool(annotations={"readOnlyHint": True})
def add(a: int, b: int) -> Sum:
    """Adds two numbers."""
    return Sum(total=a + b)


@server.tool(annotations={"readOnlyHint": True})
def shout(text: Annotated[str, Field(description="What to shout.")]) -> str:
    """Says it loudly."""
    return text.upper()


@server.prompt()
def greeting(name: str) -> str:
    """Greets somebody."""
    return f"Say hello to {name}."


@server.resource("memo://today")
def today() -> str:
    """What is on today."""
    return "nothing"


@server.resource("memo://by-name/{name}")
def memo(name: str) -> str:
    """A memo by its name."""
    return f"memo {name}"


if len(sys.argv) > 1:
    server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run(transport="stdio")
