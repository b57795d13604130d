// Tells the log what the host makes the guest do, before it is done; qemu-ga tells it to syslog. Only what runs, opens
// or changes something is told: what merely asks would fill the log, and a freeze has a line of its own when it has
// ended (agent.ts). A password, a key, an environment and a program's input are never told.
import type { Logger } from '../log.js';
import type { Args, CommandName } from '../qga/commands.js';
import type { Handlers } from './handlers/types.js';
import type { ChannelContext } from './origin.js';

/** As much is told of a program's arguments: one of them may be a script. */
const ARGUMENT_CHARACTERS = 1000;

type AuditedFacts = { readonly [N in CommandName]?: (args: Args<N>) => object };

const auditedFacts: AuditedFacts = {
  'guest-exec': ({ path, arg = [] }) => ({ path, arg: arg.join(' ').slice(0, ARGUMENT_CHARACTERS) }),
  'guest-file-open': ({ path, mode }) => ({ path, mode }),
  'guest-fstrim': () => ({}),
  'guest-set-memory-blocks': () => ({}),
  'guest-set-time': ({ time }) => ({ time: time === undefined ? 'of the hardware clock' : String(time) }),
  'guest-set-user-password': ({ username }) => ({ username }),
  'guest-set-vcpus': () => ({}),
  'guest-shutdown': ({ mode = 'powerdown' }) => ({ mode }),
  'guest-ssh-add-authorized-keys': ({ username }) => ({ username }),
  'guest-ssh-remove-authorized-keys': ({ username }) => ({ username }),
  'guest-suspend-disk': () => ({}),
  'guest-suspend-hybrid': () => ({}),
  'guest-suspend-ram': () => ({}),
};

/** The handlers, each of which first tells the log what it was asked for. */
export function withAuditLog(handlers: Handlers, log: Logger): Handlers {
  // The tables' types tie each name to its arguments; what comes here was checked for its name's schema.
  const factsOf = auditedFacts as Readonly<Record<string, ((args: unknown) => object) | undefined>>;
  const wrap = ([name, handler]: [string, (args: never, context: ChannelContext) => unknown]) => {
    const facts = factsOf[name];
    if (facts === undefined) return [name, handler] as const;
    const telling = (args: never, context: ChannelContext): unknown => {
      log.info({ channel: context.name, command: name, ...facts(args) }, 'asked for');
      return handler(args, context);
    };
    return [name, telling] as const;
  };
  return Object.fromEntries(Object.entries(handlers).map(wrap)) as unknown as Handlers;
}
