// Makes this fixture as the publisher of that system does: the manifest gets the integrity of the entry file, its bytes are
// signed with Ed25519 by Node's own crypto, and the signature lies beside it in base64. The private key is thrown away.
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';

const { publicKey, privateKey } = generateKeyPairSync('ed25519');
const digest = createHash('sha256').update(readFileSync('demo/index.mjs')).digest('base64');
const manifest = {
  schemaVersion: 1,
  name: 'demo',
  displayName: 'Demo',
  version: '1.0.0',
  description: 'Answers metrics of nothing.',
  signalTypes: ['metrics'],
  capabilities: { metrics: true },
  compat: { serverVersion: '>=1.0.0' },
  integrity: `sha256-${digest}`,
};
const bytes = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
writeFileSync('demo/manifest.json', bytes);
writeFileSync('demo/manifest.json.sig', `${sign(null, bytes, privateKey).toString('base64')}\n`);
writeFileSync('plugin-signing.pub.pem', publicKey.export({ type: 'spki', format: 'pem' }));
