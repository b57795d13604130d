// bridge-*, our own commands: a freeze with a lease, a required level and its whole report (qga/qapi-schema.json).
import { defined } from '../../defined.js';
import type { FreezeReport } from '../../consistency.js';
import { monotonicMs } from '../../linux/clock.js';
import { family, type FreezeEnvironment } from './types.js';

export function bridgeHandlers({ coordinator, keeper }: FreezeEnvironment) {
  return family({
    async 'bridge-freeze'(args, context) {
      const { session, requester, mountpoints, disks, leave } = args;
      const held = await keeper.freeze(
        {
          requester: requester ?? `bridge-freeze on ${context.name}`,
          leaseMs: args['lease-ms'],
          require: args.require,
          ...defined({ session, mountpoints, leave }),
          ...(disks === undefined
            ? {}
            : { disks: disks.map(({ serial, 'pci-address': pciAddress }) => ({ serial, pciAddress })) }),
        },
        context,
        { endsWithChannel: args['ends-with-channel'] },
      );
      return { report: held.report };
    },
    async 'bridge-renew'({ session, 'lease-ms': leaseMs }, context) {
      return { 'remaining-ms': await keeper.renew(session, leaseMs, context) };
    },
    async 'bridge-thaw'({ session }, context) {
      return { report: await keeper.thaw(session, context) };
    },
    async 'bridge-critical'({ session, on, 'bound-ms': boundMs, worker }, context) {
      const process = worker && { pid: worker.pid, startTime: worker['start-time'] };
      await keeper.critical(session, on, { boundMs, ...defined({ worker: process }) }, context);
      return {};
    },
    async 'bridge-status'() {
      const report: FreezeReport | undefined = coordinator.session?.report ?? coordinator.lastReport;
      // Both ask the freezer, which may be stopped.
      const [status, hung] = await Promise.all([coordinator.status(), coordinator.hungFilesystems()]);
      const now = monotonicMs();
      return {
        status,
        ...defined({ report }),
        untold: [...keeper.untold],
        unreleased: [...coordinator.unreleased],
        kept: [...coordinator.kept],
        hung: hung.map(({ sinceMs, ...rest }) => ({ ...rest, forMs: Math.max(0, now - sinceMs) })),
      };
    },
    async 'bridge-complete'({ session, outcome }, context) {
      return { completion: await keeper.complete(session, outcome, context) };
    },
    async 'bridge-writers'() {
      return { writers: [...(await coordinator.writers())] };
    },
  });
}
