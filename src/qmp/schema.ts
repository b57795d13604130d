// Tells what this QEMU knows, by its own schema: versions of distributions say little. Specification: QEMU
// qapi/introspect.json.
import { runQmp, type QmpReply } from './commands.js';
import type { Monitor } from './monitor.js';

/** It is long, and QEMU may be busy. */
const LIMIT_MS = 20_000;

export async function hasCommand(client: Monitor, command: string): Promise<boolean> {
  return (await readSchema(client)).some((entry) => isCommand(entry, command));
}

/** True if the command takes an argument of that name. */
export async function hasArgument(client: Monitor, command: string, argument: string): Promise<boolean> {
  const schema = await readSchema(client);
  const type = schema.find((entry) => isCommand(entry, command))?.['arg-type'];
  const object = schema.find((entry) => entry['meta-type'] === 'object' && entry.name === type);
  return (object?.members ?? []).some((member) => {
    return typeof member === 'object' && member !== null && 'name' in member && member.name === argument;
  });
}

type SchemaEntry = QmpReply<'query-qmp-schema'>[number];

function isCommand(entry: SchemaEntry, command: string): boolean {
  return entry['meta-type'] === 'command' && entry.name === command;
}

async function readSchema(client: Monitor): Promise<readonly SchemaEntry[]> {
  return await runQmp(client, 'query-qmp-schema', {}, { timeoutMs: LIMIT_MS });
}
