// What the host made the guest do, told in the log before it is done; qemu-ga tells it to syslog. Only what runs, opens or
// changes something: what merely asks would fill the log, and a freeze has a line of its own when it has ended (agent.ts).
// Never a password, a key, an environment or a program's input.
import type { Logger } from '../log.js';
import type { Args, CommandName } from '../qga/commands.js';
import type { Handlers } from './handlers/types.js';
import type { ChannelContext } from './origin.js';

/** Of a program's arguments: a script may be one. */
const ARGUMENT_CHARACTERS = 1000;

type Told = { readonly [N in CommandName]?: (args: Args<N>) => object };

const told: Told = {
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

/** The handlers, which tell first. */
export function accounted(handlers: Handlers, log: Logger): Handlers {
  // The tables' types tie each name to its arguments; what comes here was checked for its name's schema.
  const factsOf = told as Readonly<Record<string, ((args: unknown) => object) | undefined>>;
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
