// Asks a running Portcullis over MCP with version 2 of the official TypeScript SDK, once per way of negotiating.
// Usage: node matrix_v2.mjs URL [TOKEN]

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { CLIENT, bearerOptions, ending, run } from './checks.mjs';

const MODERN = '2026-07-28';

function era(label, mode, expected) {
  async function connect(url, token) {
    const client = new Client(CLIENT, { versionNegotiation: { mode } });
    const transport = new StreamableHTTPClientTransport(url, bearerOptions(token));
    await client.connect(transport);
    return { client, version: client.getNegotiatedProtocolVersion(), end: ending(client, transport) };
  }
  return { name: `typescript v2 ${label}`, connect, expected: new Set([expected]) };
}

await run('matrix_v2.mjs', [
  era('legacy', 'legacy', '2025-11-25'),
  era('auto', 'auto', MODERN),
  era('pinned', { pin: MODERN }, MODERN),
]);
