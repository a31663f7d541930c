// Asks a running Portcullis over MCP with version 1 of the official TypeScript SDK, which speaks the session era only.
// Usage: node matrix_v1.mjs URL [TOKEN]

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

import { CLIENT, bearerOptions, ending, run } from './checks.mjs';

async function connect(url, token) {
  const client = new Client(CLIENT);
  const transport = new StreamableHTTPClientTransport(url, bearerOptions(token));
  await client.connect(transport);
  return { client, version: transport.protocolVersion, end: ending(client, transport) };
}

await run('matrix_v1.mjs', [{ name: 'typescript v1', connect, expected: new Set(['2025-11-25']) }]);
