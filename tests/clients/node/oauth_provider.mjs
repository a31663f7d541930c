// A certified OpenID provider on loopback, and the person at its login and consent pages. Guards that every test has keys,
// clients and grants of its own; must not know what is tested.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { json } from 'node:stream/consumers';

import Provider, { errors } from 'oidc-provider';

export const SCOPES = ['look', 'act'];

async function listening(server) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server.address().port;
}

/** Starts the provider. It issues tokens for `resource` and for `elsewhere`, and for nothing else. */
export async function startProvider({ resource, elsewhere, redirectUrl }) {
  const server = createServer();
  const issuer = `http://127.0.0.1:${await listening(server)}`;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'test' };
  const provider = new Provider(issuer, {
    jwks: { keys: [key] },
    scopes: ['openid', ...SCOPES],
    cookies: { keys: ['for this test alone'] },
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    clients: [
      {
        client_id: 'machine',
        client_secret: 'for-this-test-alone-0123456789abcdef',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    // Clients that register themselves get the algorithm this provider has a key for.
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    features: {
      registration: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (_context, asked) => {
          if (asked !== resource && asked !== elsewhere) throw new errors.InvalidTarget();
          const audience = asked;
          return { scope: SCOPES.join(' '), audience, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } } };
        },
      },
    },
  });
  // The SDKs register themselves for the scope they were challenged with, and this provider would hold them to it for ever.
  // A server may register other values than asked for (RFC 7591 section 3.2.1): here, no limit, so that a step up can follow.
  const callback = provider.callback();
  server.on('request', async (request, response) => {
    if (request.method === 'POST' && request.url === '/reg') {
      const { scope: _, ...metadata } = await json(request);
      request.body = metadata;
    }
    callback(request, response);
  });

  // What a person with a browser does: opens the page, logs in, agrees, and is sent back with a code.
  async function agree(authorizationUrl, login) {
    const cookies = new Map();
    let [url, form] = [new URL(authorizationUrl), undefined];
    for (let step = 0; step < 20; step += 1) {
      if (url.href.startsWith(redirectUrl)) return url.searchParams;
      const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const response = await fetch(url, {
        redirect: 'manual',
        headers: { cookie },
        ...(form && { method: 'POST', body: new URLSearchParams(form) }),
      });
      for (const line of response.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
        cookies.set(name, value);
      }
      const location = response.headers.get('location');
      if (location) {
        [url, form] = [new URL(location, url), undefined];
        continue;
      }
      const page = await response.text();
      const action = /<form[^>]* action="([^"]+)"/.exec(page)?.[1];
      const prompt = /name="prompt" value="(\w+)"/.exec(page)?.[1];
      if (!action || !prompt) throw new Error(`the provider shows a page without a form: ${response.status} ${page.slice(0, 500)}`);
      [url, form] = [new URL(action, url), prompt === 'login' ? { prompt, login, password: 'any' } : { prompt }];
    }
    throw new Error('the provider never sends the browser back');
  }

  async function machineToken(asked, scope) {
    const response = await fetch(`${issuer}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from('machine:for-this-test-alone-0123456789abcdef').toString('base64')}` },
      body: new URLSearchParams({ grant_type: 'client_credentials', resource: asked, scope }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`no token: ${JSON.stringify(answer)}`);
    return answer.access_token;
  }

  return { issuer, agree, machineToken, stop: () => server.close() };
}
