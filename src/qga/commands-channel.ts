// Commands about the channel itself: finding one's place in the stream, asking whether the agent is alive, and what it has.
import * as v from 'valibot';
import { command, int, members, noArgs, nothing } from './command.js';

export const syncCommands = {
  /** Echoes `id`; the reply is preceded by 0xFF, which no JSON text holds. For a client that lost its place. */
  'guest-sync-delimited': command({
    since: '1.1',
    policy: 'freeze-only',
    args: members({ id: int }),
    returns: int,
    whenFrozen: true,
    order: 'sync',
    delimited: true,
  }),
  /** Echoes `id`. What libvirt sends, once per connection and after every time-out. */
  'guest-sync': command({
    since: '0.15.0',
    policy: 'freeze-only',
    args: members({ id: int }),
    returns: int,
    whenFrozen: true,
    order: 'sync',
  }),
  'guest-ping': command({
    since: '0.15.0',
    policy: 'freeze-only',
    args: noArgs,
    returns: nothing,
    whenFrozen: true,
  }),
} as const;

export const infoCommands = {
  /** Version and commands; `enabled` is false for what may not run now. */
  'guest-info': command({
    since: '0.15.0',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({
      version: v.string(),
      supported_commands: v.array(
        v.object({ name: v.string(), enabled: v.boolean(), 'success-response': v.boolean() }),
      ),
    }),
    whenFrozen: true,
  }),
} as const;
