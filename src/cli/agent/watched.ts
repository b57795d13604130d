// The service manager's watchdog over a serving agent: the log is held while the guest is, or may be, and that is when
// the watchdog must not expect anything either.
import type { BridgeConfiguration } from '../../agent/configuration.js';
import { startHeartbeat } from '../../agent/heartbeat.js';
import { describeError } from '../../errors.js';
import type { HeldLogger } from '../../log.js';

/** For what a thaw and the release of the writers may take after the lease. */
const RELEASE_LIMIT_S = 60;

/** The same logger, which tells the watchdog when it is held. */
export function watched(logger: HeldLogger, bridge: BridgeConfiguration): HeldLogger {
  const { freezer, 'prepare-budget-s': prepareS, 'hold-budget-s': holdS, 'lease-max-s': leaseS } = bridge;
  const heartbeat = startHeartbeat({
    env: process.env,
    freezer,
    holdAtMostS: prepareS + holdS + leaseS + RELEASE_LIMIT_S,
    onError(error) {
      logger.log.error({ error: describeError(error) }, 'the watchdog hears nothing of this agent');
    },
  });
  return {
    ...logger,
    hold() {
      heartbeat.hold();
      logger.hold();
    },
    release() {
      logger.release();
      heartbeat.release();
    },
  };
}
