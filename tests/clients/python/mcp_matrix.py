"""Asks a running Portcullis over MCP with the official Python SDK, once per protocol era.

Usage: mcp_matrix.py URL [TOKEN]

Guards what a client that is not ours sees: tools, calls, prompts, resources, completions and refusals, the same in
every era. Prints one line per era; exits 1 with one sentence when an assertion fails, 2 when it is called wrongly.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import PromptReference

MODERN = "2026-07-28"
HANDSHAKE = {"2025-11-25", "2025-06-18", "2025-03-26"}
MODES = ("legacy", "auto", MODERN)
NEEDED_TOOLS = {"list_sources", "list_services"}
CALL_SECONDS = 30


class Failed(Exception):
    """An assertion about the server that does not hold."""


def expect(holds: bool, sentence: str) -> None:
    if not holds:
        raise Failed(sentence)


async def all_pages(list_page, field: str) -> list:
    items, cursor = [], None
    for _ in range(50):
        page = await list_page(cursor=cursor)
        items.extend(getattr(page, field))
        cursor = page.next_cursor
        if not cursor:
            return items
    raise Failed(f"{field} never end: the 50th page still has a cursor")


async def is_refused(call: Awaitable) -> str | None:
    """The refusal's text, or None when the call succeeded."""
    try:
        result = await call
    except MCPError as error:
        return str(error)
    if result.is_error:
        return " ".join(getattr(part, "text", "") for part in result.content)
    return None


async def check_tools(client: Client) -> int:
    tools = await all_pages(client.list_tools, "tools")
    names = [tool.name for tool in tools]
    expect(len(names) == len(set(names)), f"tool names are not unique: {sorted(names)}")
    missing = NEEDED_TOOLS - set(names)
    expect(not missing, f"the tools {sorted(missing)} are not listed, only {sorted(names)}")
    for tool in tools:
        expect(bool(tool.description), f"tool {tool.name} has no description")
        expect(tool.input_schema.get("type") == "object", f"the input schema of {tool.name} is not an object schema")
        hints = tool.annotations
        expect(hints is not None and hints.read_only_hint is not None, f"tool {tool.name} has no readOnlyHint")
    for name in sorted(NEEDED_TOOLS):
        result = await client.call_tool(name, {}, read_timeout_seconds=CALL_SECONDS)
        expect(not result.is_error, f"{name} failed: {result.content}")
        expect(isinstance(result.structured_content, dict), f"{name} returned no structured content")
        text = [part for part in result.content if part.type == "text" and part.text]
        expect(bool(text), f"{name} returned no readable text")
    expect(await is_refused(client.call_tool("no_such_tool", {})) is not None, "a tool that does not exist was called")
    unknown = await is_refused(client.call_tool("list_services", {"no_such_argument": 1}))
    expect(unknown is not None, "list_services accepted an argument it does not have")
    expect("no_such_argument" in unknown, f"the refusal does not name the unknown argument: {unknown}")
    return len(tools)


async def check_prompts(client: Client) -> tuple[int, int]:
    prompts = await all_pages(client.list_prompts, "prompts")
    expect(bool(prompts), "there are no prompts")
    completed = 0
    for prompt in prompts:
        filled = {}
        for argument in prompt.arguments or []:
            reference = PromptReference(type="ref/prompt", name=prompt.name)
            answer = await client.complete(reference, {"name": argument.name, "value": ""})
            expect(len(answer.completion.values) <= 100, f"more than 100 completions for {prompt.name}.{argument.name}")
            completed += 1
            if argument.required:
                filled[argument.name] = (answer.completion.values or ["cart"])[0]
        result = await client.get_prompt(prompt.name, filled)
        expect(bool(result.messages), f"prompt {prompt.name} has no messages")
    expect(completed > 0, "no prompt has an argument to complete")
    return len(prompts), completed


async def check_resources(client: Client) -> int:
    resources = await all_pages(client.list_resources, "resources")
    templates = await all_pages(client.list_resource_templates, "resource_templates")
    expect(bool(resources or templates), "there are neither resources nor templates")
    for resource in resources[:3]:
        read = await client.read_resource(resource.uri)
        expect(bool(read.contents), f"resource {resource.uri} has no contents")
    try:
        await client.read_resource("portcullis://no/such/resource")
    except MCPError:
        return len(resources) + len(templates)
    raise Failed("a resource that does not exist was read")


async def check_era(url: str, token: str, mode: str) -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=headers, timeout=CALL_SECONDS) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            version = client.protocol_version
            right = version in HANDSHAKE if mode == "legacy" else version == MODERN
            expect(right, f"mode {mode} negotiated {version}")
            if mode != MODERN:  # a pinned version asks for no discovery, so that no instructions are seen
                expect(bool(client.instructions), "the server gives no instructions")
            tools = await check_tools(client)
            prompts, completed = await check_prompts(client)
            resources = await check_resources(client)
    label = "pinned" if mode == MODERN else mode
    return f"python {label} {version}: {tools} tools, {prompts} prompts, {completed} completions, {resources} resources"


async def check_wrong_token(url: str, token: str, mode: str) -> None:
    headers = {"Authorization": f"Bearer {token}x"}
    try:
        async with httpx2.AsyncClient(headers=headers, timeout=CALL_SECONDS) as http:
            async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
                await client.list_tools()
    except Exception:  # the SDK wraps the 401 differently in each era
        return
    raise Failed(f"mode {mode}: a wrong token was let in")


def first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    url, token = sys.argv[1], (sys.argv[2] if len(sys.argv) == 3 else "")
    for mode in MODES:
        try:
            print(anyio.run(check_era, url, token, mode), flush=True)
            if token:
                anyio.run(check_wrong_token, url, token, mode)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            cause = first_cause(error)
            what = str(cause) if isinstance(cause, Failed) else f"{type(cause).__name__}: {cause}"
            print(f"python {mode}: {what}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
