// Takes both official TypeScript SDKs through the whole of MCP authorization against the real binary and a certified OpenID
// provider: 401, resource metadata, provider metadata, dynamic registration, login and consent, code with PKCE, token for
// this resource, tools; then the step up to a scope a call needs. Looks at refusals of foreign and broken tokens, and at
// the audit log. Usage: node oauth_flow.mjs path/to/portcullis

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Client as ClientV2, StreamableHTTPClientTransport as TransportV2 } from '@modelcontextprotocol/client';

import { startProvider } from './oauth_provider.mjs';

const REDIRECT = 'http://127.0.0.1:9/callback';
const ELSEWHERE = 'http://127.0.0.1:9/another-server';
const NAME = { name: 'portcullis-oauth-test', version: '1.0.0' };

class Failed extends Error {}

function expect(holds, sentence) {
  if (!holds) throw new Failed(sentence);
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// What an MCP client keeps: its registration, the verifier of the code, the tokens.
class Keeper {
  constructor() {
    this.visited = [];
  }
  get redirectUrl() {
    return REDIRECT;
  }
  get clientMetadata() {
    return {
      client_name: NAME.name,
      redirect_uris: [REDIRECT],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
    };
  }
  clientInformation() {
    return this.registration;
  }
  saveClientInformation(registration) {
    this.registration = registration;
  }
  tokens() {
    return this.kept;
  }
  saveTokens(tokens) {
    this.kept = tokens;
  }
  redirectToAuthorization(url) {
    this.visited.push(url);
  }
  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }
  codeVerifier() {
    return this.verifier;
  }
  saveDiscoveryState(state) {
    this.discovered = state;
  }
  discoveryState() {
    return this.discovered;
  }
}

// Runs `step`; when the SDK sends the person to the provider instead, lets the person agree and runs it again.
async function withConsent(provider, keeper, transportOf, step, login) {
  const before = keeper.visited.length;
  try {
    return await step();
  } catch (error) {
    if (keeper.visited.length === before) throw error;
  }
  const url = keeper.visited.at(-1);
  expect(url.searchParams.get('code_challenge_method') === 'S256', `the code is not protected by PKCE: ${url}`);
  const answer = await provider.agree(url, login);
  expect(answer.get('code'), `the provider sends no code: ${answer}`);
  // The second version wants all parameters, to check who answers (RFC 9207); the first takes the code.
  const transport = transportOf();
  await transport.finishAuth(transport instanceof TransportV2 ? answer : answer.get('code'));
  return step();
}

function payload(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
}

async function wholeFlow(label, sdk, url, provider) {
  const keeper = new Keeper();
  let transport;
  let client;
  async function connect() {
    transport = new sdk.Transport(new URL(url), { authProvider: keeper });
    client = sdk.client();
    await client.connect(transport);
  }
  await withConsent(provider, keeper, () => transport, connect, 'ada');
  const first = keeper.visited[0].searchParams;
  expect(first.get('resource') === url, `${label}: the token is asked for ${first.get('resource')}, not for ${url}`);
  expect(first.get('scope') === 'look', `${label}: the first scope asked for is '${first.get('scope')}', not the least`);
  expect(payload(keeper.kept.access_token).aud === url, `${label}: the token is for ${payload(keeper.kept.access_token).aud}`);
  const few = (await client.listTools()).tools.map((tool) => tool.name);
  expect(few.length === 0, `${label}: the scope 'look' lists ${few}`);

  // The tool exists for a token with another scope: the server says which, the SDK asks for it, the person agrees.
  const result = await withConsent(provider, keeper, () => transport, () => client.callTool({ name: 'list_sources', arguments: {} }), 'ada');
  expect(!result.isError, `${label}: after the step up the call fails: ${JSON.stringify(result.content)}`);
  const asked = keeper.visited.at(-1).searchParams.get('scope').split(' ').sort().join(' ');
  expect(keeper.visited.length === 2 && asked === 'act look', `${label}: the step up asks for '${asked}'`);
  // A new connection, because a client may keep a list it already has.
  await client.close();
  await connect();
  const many = (await client.listTools()).tools.map((tool) => tool.name);
  expect(many.includes('list_sources'), `${label}: after the step up only ${many} are listed`);
  await client.close();
  console.log(`  ${label}: from 401 to ${many.length} tools, with registration, consent, PKCE and a step up`);
  return keeper.kept.access_token;
}

async function ask(url, token, headers = {}) {
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2026-07-28',
      'mcp-method': 'tools/call',
      'mcp-name': 'list_sources',
      ...(token && { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'tools/call',
      params: {
        name: 'list_sources',
        arguments: {},
        _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} },
      },
    }),
  });
  return { status: response.status, challenge: response.headers.get('www-authenticate') ?? '', body: await response.text() };
}

async function refusals(url, provider, good) {
  expect((await ask(url, good)).status === 200, 'a good token is refused');
  const machine = await provider.machineToken(url, 'act');
  expect((await ask(url, machine)).status === 200, 'the token of a machine is refused');
  const [header, claims, signature] = good.split('.');
  const root = Buffer.from(JSON.stringify({ ...payload(good), sub: 'root' })).toString('base64url');
  const unsigned = Buffer.from(JSON.stringify({ alg: 'none', typ: 'at+jwt' })).toString('base64url');
  for (const [what, token, status, word] of [
    ['no token', undefined, 401, 'resource_metadata='],
    ['a token for another server', await provider.machineToken(ELSEWHERE, 'act'), 401, 'invalid_token'],
    ['a swapped payload', `${header}.${root}.${signature}`, 401, 'invalid_token'],
    ['an unsigned token', `${unsigned}.${claims}.`, 401, 'invalid_token'],
    ['a token without the scope', await provider.machineToken(url, 'look'), 403, 'error="insufficient_scope"'],
  ]) {
    const answer = await ask(url, token);
    const said = `${what}: ${answer.status} ${answer.challenge}`;
    expect(answer.status === status && answer.challenge.includes(word) && answer.challenge.includes('resource_metadata='), said);
    expect(!answer.body.includes('eyJ'), `${what}: the answer repeats the token`);
  }
  const inUrl = await ask(`${url}?access_token=${good}`);
  expect([400, 401].includes(inUrl.status), `a token in the URL is answered with ${inUrl.status}: ${inUrl.body}`);
}

async function main(binary) {
  const folder = mkdtempSync(join(tmpdir(), 'portcullis-oauth-'));
  const [port, otlpHttp, otlpGrpc] = [await freePort(), await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}/mcp`;
  const provider = await startProvider({ resource: url, elsewhere: ELSEWHERE, redirectUrl: REDIRECT });
  const config = join(folder, 'portcullis.yaml');
  const settings = {
    data: join(folder, 'data'),
    listen: { mcp: `127.0.0.1:${port}` },
    admin: { enabled: false },
    ingest: { http: `127.0.0.1:${otlpHttp}`, grpc: `127.0.0.1:${otlpGrpc}` },
    roles: ['newcomer'],
    identity: {
      tokens: {
        entry_scopes: ['look'],
        issuers: [
          { name: 'test', issuer: provider.issuer, scopes: { look: { roles: ['newcomer'] }, act: { roles: ['reader'] } } },
        ],
      },
    },
  };
  writeFileSync(config, JSON.stringify(settings));
  const log = join(folder, 'log');
  const server = spawn('/bin/sh', ['-c', 'exec "$0" --config "$1" serve 2>"$2"', binary, config, log], { stdio: 'ignore' });
  const ended = new Promise((resolve) => server.on('exit', resolve));
  try {
    for (let waited = 0; ; waited += 1) {
      if (await fetch(new URL('/healthz', url)).then((answer) => answer.ok, () => false)) break;
      expect(server.exitCode === null && waited < 150, `the server does not start: ${readFileSync(log, 'utf8')}`);
      await pause(100);
    }
    const v1 = { Transport: TransportV1, client: () => new ClientV1(NAME) };
    const v2 = { Transport: TransportV2, client: () => new ClientV2(NAME, { versionNegotiation: { mode: 'auto' } }) };
    const good = await wholeFlow('typescript v1', v1, url, provider);
    await wholeFlow('typescript v2', v2, url, provider);
    await refusals(url, provider, good);
    server.kill('SIGTERM');
    expect((await ended) === 0, 'the server did not end in good order');
    const run = (...words) => execFileSync(binary, ['--config', config, ...words], { encoding: 'utf8' });
    const records = run('audit', 'tail', '-n', '1000', '--json').trim().split('\n').map((line) => JSON.parse(line));
    for (const rule of ['insufficient-scope', 'credential_in_url', 'token_audience_refused', 'token_signature_invalid', 'token_algorithm_refused']) {
      expect(records.some((record) => record.rule === rule && record.decision === 'deny'), `no audit record says ${rule}`);
    }
    const ada = records.filter((record) => record.principal === 'token:test/ada' && record.decision === 'allow');
    expect(ada.length > 0, `no audit record names the person: ${JSON.stringify(records.at(-1))}`);
    run('audit', 'verify');
    const written = JSON.stringify(records) + readFileSync(log, 'utf8');
    expect(!/eyJ[\w-]{20}/.test(written), 'a token stands in the log or the audit log');
  } finally {
    server.kill('SIGKILL');
    provider.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv.length !== 3) {
  console.error('usage: node oauth_flow.mjs path/to/portcullis');
  process.exit(2);
}
try {
  await main(process.argv[2]);
  process.exit(0);
} catch (error) {
  console.error(error instanceof Failed ? error.message : error);
  process.exit(1);
}
