// Ties the service manager's watchdog to the log. The log is held while the guest is held, or may be; the watchdog must
// not expect anything meanwhile either.
import type { BridgeConfiguration } from '../../agent/configuration.js';
import { startHeartbeat } from '../../agent/heartbeat.js';
import { describeError } from '../../errors.js';
import type { HeldLogger } from '../../log.js';

/** For a thaw and the release of the writers after the lease. */
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
