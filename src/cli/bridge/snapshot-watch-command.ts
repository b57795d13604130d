// `fsfreeze-bridge snapshot watch`: tells when an overlay grows beyond a limit.
import type { Argv } from 'yargs';
import { lookAtOverlays, watchOverlays, type WatchEvent } from '../../host/watch/overlay-watch.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import { byteSize, limitMs, monitorTimeout, path, storeOf, vmOf, withVm, type VmArgs } from './options.js';
import type { Output } from './output.js';
import type { Result } from './results/results.js';
import { mib, sizeLine } from './size-line.js';

interface WatchArgs extends VmArgs {
  limit: string;
  once: boolean;
  interval: number;
  events: string | undefined;
  'monitor-timeout': number;
}

export function watchOptions(yargs: Argv): Argv<WatchArgs> {
  return withVm(yargs)
    .option('limit', { type: 'string', demandOption: true, describe: 'size that no overlay should exceed: 10G, 512M' })
    .option('once', { type: 'boolean', default: false, describe: 'look once: exit 0 below the limit, 9 above' })
    .option('interval', { type: 'number', default: 10, describe: 'seconds between two looks', group: 'Limits:' })
    .option('events', {
      type: 'string',
      describe: 'a monitor socket (QMP) of its own, to hear from QEMU at once; it is in use as long as the watch runs',
    })
    .option('monitor-timeout', monitorTimeout)
    .example('$0 snapshot watch --vm db1 --limit 10G --once', 'for a monitoring system: exit code 0 or 9')
    .example('$0 snapshot watch --vm db1 --limit 10G --json', 'one JSON object per event, until a signal ends it')
    .epilogue(
      'The limit is for each overlay: what its file has allocated. The files alone are looked at, so that the VM and its ' +
        'monitor are left in peace. Ended by a signal, it exits as --once does. What to do about a large overlay: ' +
        '"snapshot commit", or "snapshot prune".',
    );
}

export async function runWatch(args: WatchArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const vm = await vmOf(args);
  const store = await storeOf(args, vm, limitMs('monitor-timeout', args['monitor-timeout']));
  const limitBytes = byteSize('limit', args.limit);
  if (args.once) {
    const look = await lookAtOverlays(store, limitBytes);
    for (const set of look.unreadable) output.warn(`set ${set} cannot be read: its overlays were not looked at`);
    output.result({ limitBytes, ...look } satisfies Result<'snapshot watch --once'>, () => [
      ...look.overlays.map((overlay) => `${look.above.includes(overlay) ? 'ABOVE' : 'below'}  ${sizeLine(overlay)}`),
      ...(look.overlays.length === 0 ? [`no overlays of ${vm.name}`] : []),
    ]);
    return exitCode(look.above.length > 0 ? 'above-limit' : 'done');
  }
  const last = await watchOverlays({
    store,
    limitBytes,
    intervalMs: limitMs('interval', args.interval),
    ...(args.events === undefined ? {} : { monitor: path(args.events) }),
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    signal,
    onEvent: (event) => {
      output.result(event satisfies Result<'snapshot watch'>, () => [eventLine(event)]);
    },
    onMonitorLost: () => {
      output.warn('the monitor for events went away: from now on the files alone are looked at');
    },
  });
  return exitCode(last.above.length > 0 ? 'above-limit' : 'done');
}

function eventLine({ event, at, limitBytes, overlay }: WatchEvent): string {
  return `${at}  ${event} ${mib(limitBytes)}: ${sizeLine(overlay)}`;
}
