// What every MCP client must see of a running Portcullis, whichever SDK asks and in whichever era.
// Guards the same facts for both TypeScript SDKs; must not import either of them.

const NEEDED_TOOLS = ['list_services', 'list_sources'];
const ARGUMENT_VALUE = 'cart';

class Failed extends Error {}

function expect(holds, sentence) {
  if (!holds) throw new Failed(sentence);
}

async function allPages(listPage, field) {
  const items = [];
  let cursor;
  for (let page = 0; page < 50; page += 1) {
    const answer = await listPage(cursor === undefined ? {} : { cursor });
    items.push(...answer[field]);
    cursor = answer.nextCursor;
    if (!cursor) return items;
  }
  throw new Failed(`${field} never end: the 50th page still has a cursor`);
}

// The refusal's text, or undefined when the call succeeded.
async function refusal(call) {
  try {
    const result = await call;
    return result.isError ? result.content.map((part) => part.text ?? '').join(' ') : undefined;
  } catch (error) {
    if (error.code === undefined) throw error;
    return error.message;
  }
}

async function checkTools(client) {
  const tools = await allPages((page) => client.listTools(page), 'tools');
  const names = tools.map((tool) => tool.name);
  expect(new Set(names).size === names.length, `tool names are not unique: ${names}`);
  for (const name of NEEDED_TOOLS) expect(names.includes(name), `the tool ${name} is not listed, only ${names}`);
  for (const tool of tools) {
    expect(tool.description, `tool ${tool.name} has no description`);
    expect(tool.inputSchema.type === 'object', `the input schema of ${tool.name} is not an object schema`);
    expect(typeof tool.annotations?.readOnlyHint === 'boolean', `tool ${tool.name} has no readOnlyHint`);
  }
  for (const name of NEEDED_TOOLS) {
    const result = await client.callTool({ name, arguments: {} });
    expect(!result.isError, `${name} failed: ${JSON.stringify(result.content)}`);
    const structured = result.structuredContent;
    expect(structured && typeof structured === 'object', `${name} returned no structured content`);
    expect(result.content.some((part) => part.type === 'text' && part.text), `${name} returned no readable text`);
  }
  const missing = await refusal(client.callTool({ name: 'no_such_tool', arguments: {} }));
  expect(missing !== undefined, 'a tool that does not exist was called');
  const unknown = await refusal(client.callTool({ name: 'list_services', arguments: { no_such_argument: 1 } }));
  expect(unknown !== undefined, 'list_services accepted an argument it does not have');
  expect(unknown.includes('no_such_argument'), `the refusal does not name the unknown argument: ${unknown}`);
  return tools.length;
}

async function checkPrompts(client) {
  const prompts = await allPages((page) => client.listPrompts(page), 'prompts');
  expect(prompts.length > 0, 'there are no prompts');
  let completed = 0;
  for (const prompt of prompts) {
    const filled = {};
    for (const argument of prompt.arguments ?? []) {
      const { completion } = await client.complete({
        ref: { type: 'ref/prompt', name: prompt.name },
        argument: { name: argument.name, value: '' },
      });
      expect(completion.values.length <= 100, `more than 100 completions for ${prompt.name}.${argument.name}`);
      completed += 1;
      if (argument.required) filled[argument.name] = completion.values[0] ?? ARGUMENT_VALUE;
    }
    const result = await client.getPrompt({ name: prompt.name, arguments: filled });
    expect(result.messages.length > 0, `prompt ${prompt.name} has no messages`);
  }
  expect(completed > 0, 'no prompt has an argument to complete');
  return { prompts: prompts.length, completed };
}

async function checkResources(client) {
  const resources = await allPages((page) => client.listResources(page), 'resources');
  const templates = await allPages((page) => client.listResourceTemplates(page), 'resourceTemplates');
  expect(resources.length + templates.length > 0, 'there are neither resources nor templates');
  for (const { uri } of resources.slice(0, 3)) {
    const read = await client.readResource({ uri });
    expect(read.contents.length > 0, `resource ${uri} has no contents`);
  }
  let readNothing = true;
  try {
    await client.readResource({ uri: 'portcullis://no/such/resource' });
    readNothing = false;
  } catch (error) {
    if (error.code === undefined) throw error;
  }
  expect(readNothing, 'a resource that does not exist was read');
  return resources.length + templates.length;
}

// Runs every check. `connect(token)` gives { client, version, end }; `expected` is the set of versions that are right.
async function checkEra(name, connect, token, expected) {
  const { client, version, end } = await connect(token);
  try {
    expect(expected.has(version), `negotiated ${version}, not one of ${[...expected]}`);
    expect(client.getInstructions(), 'the server gives no instructions');
    const tools = await checkTools(client);
    const { prompts, completed } = await checkPrompts(client);
    const resources = await checkResources(client);
    console.log(`${name} ${version}: ${tools} tools, ${prompts} prompts, ${completed} completions, ${resources} resources`);
  } finally {
    await end();
  }
  if (!token) return;
  let letIn;
  try {
    letIn = await connect(`${token}x`);
    await letIn.client.listTools();
  } catch {
    return; // each SDK wraps the 401 in an error of its own
  } finally {
    await letIn?.end();
  }
  throw new Failed('a wrong token was let in');
}

// The whole run: `eras` is a list of { name, connect(url, token), expected }.
export async function run(script, eras) {
  const [url, token = ''] = process.argv.slice(2);
  if (!url || process.argv.length > 4) {
    console.error(`Usage: node ${script} URL [TOKEN]`);
    process.exit(2);
  }
  for (const { name, connect, expected } of eras) {
    try {
      await checkEra(name, (bearer) => connect(new URL(url), bearer), token, expected);
    } catch (error) {
      const cause = error.cause ? ` (${error.cause.message || error.cause.code})` : '';
      console.error(`${name}: ${error instanceof Failed ? error.message : `${error.name}: ${error.message}${cause}`}`);
      process.exit(1);
    }
  }
}

// Ends a connection as a well-behaved client does: the session is given back, not left to time out.
export function ending(client, transport) {
  return async () => {
    await transport.terminateSession();
    await client.close();
  };
}

// The options that make a Streamable HTTP transport of either SDK present a token.
export function bearerOptions(token) {
  return token ? { requestInit: { headers: { authorization: `Bearer ${token}` } } } : {};
}

export const CLIENT = { name: 'portcullis-test-client', version: '1.0.0' };
