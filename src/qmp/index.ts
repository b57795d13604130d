/**
 * A client of QEMU's monitor (QMP), for programs: `fsfreeze-bridge/qmp-client`. TypeScript needs `@types/node` for it.
 *
 * ```ts
 * import { DeadlineError, QmpClient, QmpError, UnreachableError } from 'fsfreeze-bridge/qmp-client';
 *
 * try {
 *   await using client = await QmpClient.connect('/run/vm/qmp.sock', { timeoutMs: 2000 });
 *   using stopped = client.listen('STOP'); // before the command that causes it: no event is missed
 *   await client.execute('stop');
 *   const { timestamp } = await stopped.next(5000);
 *   console.log(`QEMU ${client.version.major} stopped the guest at ${timestamp.seconds}`);
 *   await client.execute('cont', undefined, { timeoutMs: 30_000 });
 * } catch (error) {
 *   if (error instanceof QmpError) console.error(`QEMU refused ${error.command}: ${error.class}: ${error.desc}`);
 *   else if (error instanceof DeadlineError) console.error(`no answer in time, outcome ${error.outcome}`);
 *   else if (error instanceof UnreachableError) console.error(`no monitor: ${error.code}: ${error.message}`);
 *   else throw error;
 * }
 * ```
 *
 * Every error is a QmpError (QEMU's own words) or a BridgeError with a stable `code`, its facts and its outcome:
 * `unknown` where QEMU may have acted although nobody heard so.
 *
 * @packageDocumentation
 */
export type { ErrorCode } from '../error-codes.js';
export { BridgeError, DeadlineError, UnreachableError, type Facts, type Outcome } from '../errors.js';
export { RemoteError, type ErrorClass } from '../rpc/errors.js';
export {
  QmpClient,
  type QmpConnectOptions,
  type QmpExecuteOptions,
  type QmpLogEntry,
  type QmpVersion,
} from './client.js';
export { QmpError } from './errors.js';
export type { QmpEvent, QmpEventFilter, QmpEventListener } from './events.js';
