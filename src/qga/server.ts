// The server's end of the guest-agent protocol: binds declarations to handlers, and says what may run when. The commands
// about the channel itself are answered here; all others in src/agent/handlers/.
import type { DispatcherOptions, Operation } from '../rpc/operation.js';
import { RemoteError } from '../rpc/errors.js';
import { checkArguments } from './argument-texts.js';
import type { ArgsSchema, Command } from './command.js';
import { commandNames, commands, type Args, type CommandName, type Returns } from './commands.js';

/** The release whose words are used: 7.2 and 10.2 differ in what they say of a disabled command, and in what they have. */
export type Compat = '10.2' | '7.2';

type ChannelCommand = 'guest-sync' | 'guest-sync-delimited' | 'guest-ping' | 'guest-info';

/** A handler for each command, under its name. `C` is what the server knows of the channel that a request came on. */
export type Handlers<C> = {
  readonly [N in Exclude<CommandName, ChannelCommand>]: (args: Args<N>, context: C) => Promise<Returns<N>> | Returns<N>;
};

export interface Policy {
  readonly compat: Compat;
  /** Commands switched off by the guest's administrator (`-b`). */
  readonly blocked: ReadonlySet<string>;
  /** If given, all other commands are switched off (`-a`). */
  readonly allowed?: ReadonlySet<string>;
  /** While true, only commands declared `whenFrozen` run, and those whatever the lists say. */
  readonly isFrozen: () => boolean;
}

/**
 * The operations and refusals that make a Dispatcher a guest agent.
 * @param version the one that guest-info tells
 * @param heldFor in words, who holds the guest, if that is somebody else than this channel's peer
 */
export function guestAgent<C>(
  handlers: Handlers<C>,
  policy: Policy,
  version: string,
  heldFor: (context: C) => string | undefined = () => undefined,
): Pick<DispatcherOptions<C>, 'operations' | 'refusal'> {
  const refusal = (name: string): string | undefined => whyDisabled(policy, name);
  const all: AllHandlers<C> = {
    ...handlers,
    'guest-sync': ({ id }) => id,
    'guest-sync-delimited': ({ id }) => id,
    'guest-ping': () => ({}),
    'guest-info': () => guestInfo(version, policy.compat, refusal),
  };
  const operations = new Map<string, Operation<C>>();
  for (const name of commandNames) if (isSpoken(name, policy.compat)) operations.set(name, operation(name, all));
  if (policy.compat === '7.2') for (const name of namesWithoutCommand) operations.set(name, unsupported(name));
  return {
    operations,
    refusal(name, context) {
      const why = refusal(name);
      const holder = why !== undefined && policy.isFrozen() ? heldFor(context) : undefined;
      return holder === undefined ? why : `Command ${name} has been disabled: the guest is held by ${holder}`;
    },
  };
}

/** Commands of other systems: 7.2 lists them, disabled, and later releases do not know them. */
const namesWithoutCommand: readonly string[] = ['guest-get-devices'];

function unsupported<C>(name: string): Operation<C> {
  return {
    name,
    successResponse: true,
    delimited: false,
    order: 'queued',
    call: () => Promise.reject(new RemoteError('CommandNotFound', `Command ${name} has been disabled`)),
  };
}

/** True if that release had the command. Our own are always there. */
function isSpoken(name: CommandName, compat: Compat): boolean {
  const [major = 0, minor = 0] = commands[name].since.split('.').map(Number);
  return compat !== '7.2' || name.startsWith('bridge-') || major < 7 || (major === 7 && minor <= 2);
}

type AllHandlers<C> = {
  readonly [N in CommandName]: (args: Args<N>, context: C) => Promise<Returns<N>> | Returns<N>;
};

function operation<C>(name: CommandName, handlers: AllHandlers<C>): Operation<C> {
  const declaration = commands[name];
  const { successResponse, delimited, order } = declaration;
  // The table's type ties each name to its arguments. Here that is lost, and the schema checks them instead.
  const handler = handlers[name] as (args: unknown, context: C) => unknown;
  return {
    name,
    successResponse,
    delimited,
    order,
    call(args, context) {
      // Checked before anything is awaited: a sync does not overtake a freeze that is refused for its arguments.
      const checked = checkArguments<ArgsSchema>(declaration.args, args);
      return (async () => await handler(checked, context))();
    },
  };
}

/**
 * Why a command may not run now, in QEMU's words (match on the class and `has been disabled`: the rest changed between
 * its versions); undefined if it may.
 */
export function whyDisabled(policy: Policy, name: string): string | undefined {
  const disabled = `Command ${name} has been disabled`;
  const old = policy.compat === '7.2';
  if (policy.isFrozen()) {
    if (isWhenFrozen(name)) return undefined;
    return `${disabled}: ${old ? 'the agent is in frozen state' : 'the command is not allowed'}`;
  }
  const off =
    namesWithoutCommand.includes(name) ||
    policy.blocked.has(name) ||
    (policy.allowed !== undefined && !policy.allowed.has(name));
  if (!off) return undefined;
  return old ? disabled : `${disabled}: the command is not allowed`;
}

function isWhenFrozen(name: string): boolean {
  const table: Readonly<Record<string, Command>> = commands;
  return Object.hasOwn(table, name) && table[name]?.whenFrozen === true;
}

function guestInfo(
  version: string,
  compat: Compat,
  refusal: (name: string) => string | undefined,
): Returns<'guest-info'> {
  const enabled = (name: string): boolean => refusal(name) === undefined;
  const listed: Returns<'guest-info'>['supported_commands'] = commandNames
    .filter((name) => isSpoken(name, compat))
    .map((name) => ({
      name,
      enabled: enabled(name),
      'success-response': commands[name].successResponse,
    }));
  if (compat === '7.2') {
    const place = listed.findIndex(({ name }) => name === 'guest-ssh-get-authorized-keys');
    const others = namesWithoutCommand.map((name) => ({ name, enabled: enabled(name), 'success-response': true }));
    listed.splice(place, 0, ...others);
  }
  // From the last to the first, as qemu-ga builds its list. Ours follow those that a client of qemu-ga looks for.
  const isOurs = ({ name }: { readonly name: string }): boolean => name.startsWith('bridge-');
  return {
    version,
    supported_commands: [...listed.filter((one) => !isOurs(one)).reverse(), ...listed.filter(isOurs)],
  };
}

/** For a handler that cannot do what was asked: answers GenericError with `desc`. */
export function refuse(desc: string): never {
  throw new RemoteError('GenericError', desc);
}
