// The gate before an agent in which no command is blocked, so that it can be asked with arguments that are wrong: every
// request is one piece of strict JSON, and either a command that only reads, or it carries an argument that no command
// has. QAPI's generated code looks at all arguments, and for ones too many, before it calls the command; the recorder
// makes sure of it with a command that does no harm before it sends any other (`canary`).
import { signatures } from './qapi-signatures.js';

/** The argument that no command has. */
export const noSuchArgument = 'no-such-argument';

/** A request that must be refused by name of `noSuchArgument`, or the agent is asked nothing at all. */
export const canary = `{"execute": "guest-get-time", "arguments": {"${noSuchArgument}": 0}}`;

/** Commands that change nothing, whatever their arguments are. */
export const changesNothing: ReadonlySet<string> = new Set([
  ...signatures.filter((command) => command.readOnly).map(({ name }) => name),
  'guest-sync',
  'guest-sync-delimited',
  'guest-exec-status',
  'guest-file-close',
  'guest-file-flush',
  'guest-file-read',
  'guest-file-seek',
  'guest-ssh-get-authorized-keys',
]);

/** Throws unless the request is one that changes nothing. */
export function checkRequest(text: string): void {
  const refuse = (why: string): never => {
    throw new Error(`refused to send ${text.slice(0, 200)}: ${why}`);
  };
  let request: unknown;
  try {
    request = JSON.parse(text);
  } catch {
    return refuse('it is no JSON');
  }
  if (!isRecord(request)) return refuse('it is no object');
  const { execute, arguments: args = {}, ...rest } = request;
  if (typeof execute !== 'string' || Object.keys(rest).some((name) => name !== 'id')) return refuse('it is no request');
  if (changesNothing.has(execute)) return;
  if (!isRecord(args)) return refuse('its arguments are no object');
  if (Object.hasOwn(args, noSuchArgument)) return;
  if (execute === 'guest-file-open' && isUnknownPath(args['path'])) return;
  if (execute === 'guest-file-write' && isUnknownHandle(args['handle'])) return;
  refuse(`${execute} with arguments that might be taken`);
}

/** In the folder of that name there is nothing, and none is made by opening a file in it. */
function isUnknownPath(path: unknown): boolean {
  return typeof path === 'string' && path.startsWith('/nonexistent/');
}

/** Handles begin at 1000. */
function isUnknownHandle(handle: unknown): boolean {
  return typeof handle === 'number' && handle < 1000;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
