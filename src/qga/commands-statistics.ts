// Counters of the kernel, as they stand in /proc: times in milliseconds, sectors of 512 bytes.
import * as v from 'valibot';
import { command, int, noArgs } from './command.js';

const count = v.optional(int);

export const statisticsCommands = {
  'guest-get-diskstats': command({
    since: '7.1',
    args: noArgs,
    returns: v.array(
      v.object({
        name: v.string(),
        major: int,
        minor: int,
        stats: v.object({
          'read-sectors': count,
          'read-ios': count,
          'read-merges': count,
          'write-sectors': count,
          'write-ios': count,
          'write-merges': count,
          'discard-sectors': count,
          'discard-ios': count,
          'discard-merges': count,
          'flush-ios': count,
          'read-ticks': count,
          'write-ticks': count,
          'discard-ticks': count,
          'flush-ticks': count,
          'ios-pgr': count,
          'total-ticks': count,
          'weight-ticks': count,
        }),
      }),
    ),
  }),
  'guest-get-cpustats': command({
    since: '7.1',
    args: noArgs,
    returns: v.array(
      v.object({
        type: v.literal('linux'),
        cpu: int,
        user: int,
        nice: int,
        system: int,
        idle: int,
        iowait: count,
        irq: count,
        softirq: count,
        steal: count,
        guest: count,
        guestnice: count,
      }),
    ),
  }),
  'guest-get-load': command({
    since: '10.0',
    args: noArgs,
    returns: v.object({ load1m: v.number(), load5m: v.number(), load15m: v.number() }),
  }),
} as const;
