// The server side of the guest-agent protocol: declarations bound to handlers, and what may run when. The commands
// about the channel itself are answered here; all others are src/agent's.
import type { DispatcherOptions, Operation } from '../rpc/operation.js';
import { RemoteError } from '../rpc/errors.js';
import { checkArguments } from './argument-texts.js';
import type { ArgsSchema, Command } from './command.js';
import { commandNames, commands, type Args, type CommandName, type Returns } from './commands.js';

/** Whose wording: 7.2 differs from 10.2 in what it says of a command disabled while frozen. */
export type Compat = '10.2' | '7.2';

type ChannelCommand = 'guest-sync' | 'guest-sync-delimited' | 'guest-ping' | 'guest-info';

/** One handler per command, named like it. `C` is what the server knows of the channel a request came on. */
export type Handlers<C> = {
  readonly [N in Exclude<CommandName, ChannelCommand>]: (args: Args<N>, context: C) => Promise<Returns<N>> | Returns<N>;
};

export interface Policy {
  readonly compat: Compat;
  /** Commands switched off by the guest's administrator (`-b`). */
  readonly blocked: ReadonlySet<string>;
  /** If given, all others are switched off (`-a`). */
  readonly allowed?: ReadonlySet<string>;
  /** While true, only commands declared `whenFrozen` run, and those whatever the lists say. */
  readonly isFrozen: () => boolean;
}

/**
 * What a Dispatcher needs to be a guest agent.
 * @param version what guest-info answers
 */
export function guestAgent<C>(
  handlers: Handlers<C>,
  policy: Policy,
  version: string,
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
  return { operations, refusal };
}

/** 7.2 names commands of other systems too, disabled; later releases do not know them. In the place of 7.2's list. */
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

/** Whether that release had the command; ours are always there. */
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
  // The table's type ties each name to its arguments; the one place where that is forgotten is checked by the schema.
  const handler = handlers[name] as (args: unknown, context: C) => unknown;
  return {
    name,
    successResponse,
    delimited,
    order,
    call(args, context) {
      // Before anything is awaited: a freeze that is refused for its arguments is not one that a sync overtakes.
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
  // From behind, as qemu-ga builds its list; ours after those a client looks for.
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
